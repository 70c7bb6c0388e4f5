/* Who holds what, against who announced what; complete when both agree, which is one comparison.
 *
 * A held prefix is good while its client announces it and stale otherwise.  A receiver's own prefixes are
 * never held: what a reflector sends back is counted by the sessions. */
#include <stdlib.h>

#include "loadgen.h"

static uint32_t each, words;
static uint64_t *bits;            /* a row of `words` for each receiver */
static uint32_t *holders;         /* of each prefix */
static uint32_t *owner_of;        /* the client of each prefix */
static bool *announced, *up;
static uint32_t clients_total;
static uint64_t good, stale, ups, announced_prefixes, own_prefixes;

static void *zeroed(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        abort();
    return memory;
}

void table_init(uint32_t clients, uint32_t prefixes_each, uint32_t receivers) {
    uint32_t prefixes = clients * prefixes_each;
    each = prefixes_each;
    clients_total = clients;
    words = (prefixes + 63) / 64;
    bits = zeroed((size_t)words * receivers, sizeof *bits);
    holders = zeroed(prefixes, sizeof *holders);
    owner_of = zeroed(prefixes, sizeof *owner_of);
    announced = zeroed(receivers, sizeof *announced);
    up = zeroed(receivers, sizeof *up);
    for (uint32_t prefix = 0; prefix < prefixes; prefix++)
        owner_of[prefix] = prefix / each;
}

void table_learn(uint32_t receiver, uint32_t prefix) {
    uint64_t *word = bits + (size_t)receiver * words + prefix / 64, bit = 1ull << (prefix & 63);
    if (*word & bit) {
        counts.duplicates++;
        return;
    }
    *word |= bit;
    holders[prefix]++;
    if (announced[owner_of[prefix]])
        good++;
    else
        stale++;
}

void table_forget(uint32_t receiver, uint32_t prefix) {
    uint64_t *word = bits + (size_t)receiver * words + prefix / 64, bit = 1ull << (prefix & 63);
    if (!(*word & bit)) {
        counts.needless++;
        return;
    }
    *word &= ~bit;
    holders[prefix]--;
    if (announced[owner_of[prefix]])
        good--;
    else
        stale--;
}

void table_announced(uint32_t client, bool now_announced) {
    uint64_t held = 0;
    if (announced[client] == now_announced)
        return;
    announced[client] = now_announced;
    for (uint32_t prefix = client * each; prefix < (client + 1) * each; prefix++)
        held += holders[prefix];
    if (now_announced) {
        good += held;
        stale -= held;
        announced_prefixes += each;
        own_prefixes += up[client] ? each : 0;
    } else {
        good -= held;
        stale += held;
        announced_prefixes -= each;
        own_prefixes -= up[client] ? each : 0;
    }
}

void table_up(uint32_t receiver) {
    up[receiver] = true;
    ups++;
    own_prefixes += announced[receiver] ? each : 0;
}

void table_down(uint32_t receiver) {
    uint64_t *row = bits + (size_t)receiver * words;
    if (!up[receiver])
        return;
    for (uint32_t word = 0; word < words; word++)
        while (row[word])
            table_forget(receiver, word * 64 + (uint32_t)__builtin_ctzll(row[word]));
    up[receiver] = false;
    ups--;
    own_prefixes -= announced[receiver] ? each : 0;
}

bool table_is_complete(void) { return !stale && good == ups * announced_prefixes - own_prefixes; }

uint64_t table_missing(void) { return ups * announced_prefixes - own_prefixes - good + stale; }

uint32_t table_all_announced(void) { return announced_prefixes == (uint64_t)clients_total * each; }
