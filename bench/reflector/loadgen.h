/* The load generator's parts: the table says who should have what, the sessions carry it. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bgp.h"

/* What was received since the last reset, and what was wrong with it. */
struct counts {
    uint64_t bytes, messages, updates, announced, withdrawn, end_of_rib;
    uint64_t duplicates;          /* announced although already held */
    uint64_t needless;            /* withdrawn although not held */
    uint64_t own;                 /* a client's own path, sent back to it */
    uint64_t wrong_next_hop, wrong_originator, wrong_cluster_list, wrong_attributes, malformed;
    uint64_t lost, retries;       /* sessions that were lost, connections that were tried again */
};
extern struct counts counts;

/* table.c: prefixes held by each receiver against those announced. */
void table_init(uint32_t clients, uint32_t prefixes_each, uint32_t receivers);
void table_learn(uint32_t receiver, uint32_t prefix);
void table_forget(uint32_t receiver, uint32_t prefix);
void table_announced(uint32_t client, bool announced);
void table_up(uint32_t receiver);
void table_down(uint32_t receiver);
bool table_is_complete(void);
uint64_t table_missing(void);     /* prefixes that some receiver lacks, or holds although withdrawn */
uint32_t table_all_announced(void);

/* update.c: false when the message is malformed. */
void update_init(uint32_t clients, uint32_t prefixes_each);
bool update_is_sound(uint32_t client, const uint8_t *body, const uint8_t *end);

/* session.c: the clients' sockets. */
void sessions_init(uint32_t clients, uint32_t prefixes_each, uint32_t receivers, uint32_t window);
void session_connect(uint32_t client, bool announce_when_up);
void session_close(uint32_t client);
void session_announce(uint32_t client);
void session_withdraw(uint32_t client);
bool session_is_up(uint32_t client);
double session_up_at(uint32_t client);
uint32_t sessions_up(void);
bool sessions_run(bool (*done)(void), double deadline);  /* false: the deadline passed first */
bool sessions_input(char *line, size_t size);            /* the next command, while the sessions go on */
double now(void);
double last_update_at(void);

#endif
