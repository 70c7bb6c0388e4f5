/* One received UPDATE: parsed, checked as RFC 4456 has it, and told to the table.
 *
 * A reflected path keeps its client's next hop, MED and local preference, has that client as ORIGINATOR_ID,
 * and the reflector's cluster ID, once, as CLUSTER_LIST; it has no attribute that the client did not send. */
#include "loadgen.h"

static uint32_t each, prefixes;

void update_init(uint32_t clients, uint32_t prefixes_each) {
    each = prefixes_each;
    prefixes = clients * prefixes_each;
}

static bool is_prefix(const uint8_t *p, const uint8_t *end, uint32_t *prefix) {
    *prefix = get24(p + 1) - FIRST_PREFIX;
    return end - p >= 4 && *p == 24 && *prefix < prefixes;
}

static bool is_announced(uint32_t client, const uint8_t *a, const uint8_t *attributes_end, const uint8_t *end) {
    uint32_t next_hop = 0, originator = 0, cluster_list = 0, med = UINT32_MAX, local_pref = 0, seen = 0, prefix;
    const uint8_t *p = attributes_end;
    while (attributes_end - a >= 3) {
        uint32_t extended = a[0] & 0x10, type = a[1];
        if (extended && attributes_end - a < 4)
            return false;
        uint32_t length = extended ? get16(a + 2) : a[2];
        a += extended ? 4 : 3;
        if (length > attributes_end - a)
            return false;
        seen |= 1u << (type & 31);
        uint32_t value = length == 4 ? get32(a) : 0;
        switch (type) {
        case A_NEXT_HOP: next_hop = value; break;
        case A_MED: med = value; break;
        case A_LOCAL_PREF: local_pref = value; break;
        case A_ORIGINATOR_ID: originator = value; break;
        case A_CLUSTER_LIST: cluster_list = value; break;
        case A_AS_PATH: seen |= length ? 1u << 31 : 0; break;
        case A_ORIGIN: break;
        default: seen |= 1u << 31;
        }
        a += length;
    }
    if (a != attributes_end)
        return false;
    uint32_t source = next_hop - FIRST_CLIENT, first = source * each;
    bool own = source == client;
    if (!own) {
        counts.wrong_originator += originator != next_hop;
        counts.wrong_cluster_list += cluster_list != REFLECTOR;
        counts.wrong_attributes += med != source || local_pref != 100 || seen >> 31 ||
                                   !(seen & 1u << A_ORIGIN) || !(seen & 1u << A_AS_PATH);
    }
    for (; p < end; p += 4) {
        if (!is_prefix(p, end, &prefix))
            return false;
        counts.announced++;
        if (source >= prefixes / each || prefix - first >= each)
            counts.wrong_next_hop++;
        else if (own)
            counts.own++;
        else
            table_learn(client, prefix);
    }
    return true;
}

bool update_is_sound(uint32_t client, const uint8_t *p, const uint8_t *end) {
    uint32_t prefix;
    counts.updates++;
    if (end - p < 4 || get16(p) > end - p - 4)
        return false;
    const uint8_t *withdrawn_end = p + 2 + get16(p);
    uint32_t attributes = get16(withdrawn_end);
    if (attributes > end - withdrawn_end - 2)
        return false;
    if (end - p == 4)
        counts.end_of_rib++;
    for (p += 2; p < withdrawn_end; p += 4) {
        if (!is_prefix(p, withdrawn_end, &prefix))
            return false;
        counts.withdrawn++;
        if (prefix - client * each < each)
            counts.needless++;
        else
            table_forget(client, prefix);
    }
    p = withdrawn_end + 2;
    return p + attributes == end || is_announced(client, p, p + attributes, end);
}
