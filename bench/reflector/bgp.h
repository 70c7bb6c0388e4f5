/* The little of BGP-4 (RFC 4271, 4456, 6793) that the load generator and the floor need.
 *
 * Owns: the addresses and prefixes of the emulated clients, and the messages that both sides build.
 * Independent of the product's code on purpose: a bench that shared its codec would share its mistakes. */
#ifndef BGP_H
#define BGP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { OPEN = 1, UPDATE = 2, NOTIFICATION = 3, KEEPALIVE = 4, ROUTE_REFRESH = 5 };
enum { A_ORIGIN = 1, A_AS_PATH, A_NEXT_HOP, A_MED, A_LOCAL_PREF, A_ORIGINATOR_ID = 9, A_CLUSTER_LIST };

#define PORT 179
#define ASN 65000
#define HOLD_TIME 240
#define HEADER 19
#define MAX_MESSAGE 4096
#define REFLECTOR 0x0A000002u     /* 10.0.0.2: its address, its BGP identifier and its cluster ID */
#define FIRST_CLIENT 0x0A010001u  /* client i is 10.1.0.1 + i: its address, BGP identifier and next hop */
#define FIRST_PREFIX 0x200000u    /* prefix p is 32.0.0.0/24 plus p times a /24 */
#define PREFIXES_A_MESSAGE 1000   /* leaves room for the reflector's two attributes */

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | get24(p + 1); }

static inline uint8_t *put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static inline uint8_t *put32(uint8_t *p, uint32_t v) { return put16(put16(p, v >> 16), v & 0xffff); }

static inline uint8_t *put_header(uint8_t *p, int type) {
    memset(p, 0xff, 16);
    p[18] = (uint8_t)type;
    return p + HEADER;
}

static inline size_t finish(uint8_t *message, const uint8_t *end) {
    put16(message + 16, (uint32_t)(end - message));
    return (size_t)(end - message);
}

static inline size_t keepalive(uint8_t *message) { return finish(message, put_header(message, KEEPALIVE)); }

/* IPv4 unicast, route refresh and 4-octet AS numbers.  No graceful restart: a lost client's routes must go. */
static inline size_t open_message(uint8_t *message, uint32_t bgp_id) {
    static const uint8_t capabilities[] = {2, 14, 1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, ASN >> 8, ASN & 255};
    uint8_t *p = put_header(message, OPEN);
    *p++ = 4;
    p = put16(p, ASN);
    p = put16(p, HOLD_TIME);
    p = put32(p, bgp_id);
    *p++ = sizeof capabilities;
    memcpy(p, capabilities, sizeof capabilities);
    return finish(message, p + sizeof capabilities);
}

static inline uint8_t *put_prefixes(uint8_t *p, uint32_t first, uint32_t count) {
    for (uint32_t prefix = first; prefix < first + count; prefix++)
        p = put32(p, 24u << 24 | (FIRST_PREFIX + prefix));
    return p;
}

/* One client's prefixes, packed under its own next hop; MED tells the clients' attributes apart once more. */
static inline size_t announcement(uint8_t *message, uint32_t client, uint32_t first, uint32_t count) {
    static const uint8_t fixed[] = {0x40, A_ORIGIN, 1, 0, 0x40, A_AS_PATH, 0, 0x40, A_NEXT_HOP, 4};
    static const uint8_t local_pref[] = {0x40, A_LOCAL_PREF, 4, 0, 0, 0, 100};
    uint8_t *p = put_header(message, UPDATE);
    uint8_t *length = put16(p, 0);
    p = length + 2;
    memcpy(p, fixed, sizeof fixed);
    p = put32(p + sizeof fixed, FIRST_CLIENT + client);
    *p++ = 0x80;
    *p++ = A_MED;
    *p++ = 4;
    p = put32(p, client);
    memcpy(p, local_pref, sizeof local_pref);
    p += sizeof local_pref;
    put16(length, (uint32_t)(p - length - 2));
    return finish(message, put_prefixes(p, first, count));
}

static inline size_t withdrawal(uint8_t *message, uint32_t first, uint32_t count) {
    uint8_t *p = put_header(message, UPDATE);
    uint8_t *end = put_prefixes(p + 2, first, count);
    put16(p, (uint32_t)(end - p - 2));
    return finish(message, put16(end, 0));
}

#endif
