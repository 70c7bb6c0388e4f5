/* N iBGP clients of a route reflector, K prefixes each: what they do, and when everyone knows.
 *
 * loadgen CLIENTS PREFIXES_EACH WINDOW; a command a line on stdin, a JSON object a line on stdout:
 *   connect SECONDS          all clients connect; done when all are Established
 *   announce SECONDS         all announce; done when everyone has everything
 *   cold SECONDS             all connect, and each announces as soon as it is Established
 *   churn ROUNDS SECONDS     one client withdraws, everyone knows; it announces, everyone knows
 *   burst PERCENT SECONDS    so many clients at once do the same
 *   lose PERCENT SECONDS     so many close their sockets, everyone knows; they connect and announce again
 *   join TIMES SECONDS       one more client connects, and has everything
 *   settle QUIET SECONDS     wait until no update came for QUIET seconds
 * Any input ends a phase that is running, which then has failed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "loadgen.h"

#define PAUSE 0.045               /* between two single changes: delayed acknowledgements (40 ms) are out */

#define AWAY 1.0                  /* a lost client's speaker may be done with its old session; not counted */

static uint32_t clients, each;
static double began;
static bool ok;

static bool never(void) { return false; }
static bool all_up(void) { return sessions_up() == clients; }
static bool all_have_all(void) { return all_up() && table_all_announced() && table_is_complete(); }
static bool joiner_is_up(void) { return session_is_up(clients); }

static void begin(void) {
    counts = (struct counts){0};
    ok = true;
    began = now();
}

static double reach(bool (*done)(void), double deadline) {
    double start = now();
    if (ok)
        ok = done() || sessions_run(done, deadline);
    return now() - start;
}

static void end(const char *phase, double seconds) {
    printf("{\"phase\":\"%s\",\"ok\":%s,\"seconds\":%.6f,\"up\":%u,\"missing\":%" PRIu64, phase,
           ok ? "true" : "false", seconds, sessions_up(), table_missing());
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"bytes", counts.bytes}, {"messages", counts.messages}, {"updates", counts.updates},
        {"announced", counts.announced}, {"withdrawn", counts.withdrawn}, {"end_of_rib", counts.end_of_rib},
        {"duplicates", counts.duplicates}, {"needless", counts.needless}, {"own", counts.own},
        {"wrong_next_hop", counts.wrong_next_hop}, {"wrong_originator", counts.wrong_originator},
        {"wrong_cluster_list", counts.wrong_cluster_list}, {"wrong_attributes", counts.wrong_attributes},
        {"malformed", counts.malformed}, {"lost", counts.lost}, {"retries", counts.retries},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        printf(",\"%s\":%" PRIu64, fields[i].name, fields[i].value);
}

static void samples(const char *name, const double *values, uint32_t count) {
    printf(",\"%s\":[", name);
    for (uint32_t i = 0; i < count; i++)
        printf("%s%.6f", i ? "," : "", values[i]);
    printf("]");
}

static void connect_all(bool announce, double seconds) {
    begin();
    for (uint32_t client = 0; client < clients; client++)
        session_connect(client, announce);
    double up = reach(all_up, began + seconds);
    double all = announce ? up + reach(all_have_all, began + seconds) : up;
    end(announce ? "cold" : "connect", all);
    if (announce)
        samples("steps", (double[]){up, all - up}, 2);
}

static void announce(double seconds) {
    begin();
    for (uint32_t client = 0; client < clients; client++)
        if (session_is_up(client))
            session_announce(client);
    end("announce", reach(all_have_all, began + seconds));
}

/* Spread, so that no timer of a speaker falls into step with the changes. */
static double pause(uint32_t round) { return PAUSE + (double)(round * 7 % 20) / 1000; }

static void churn(uint32_t rounds, double seconds) {
    double *withdrawn = calloc(rounds, sizeof(double)), *announced = calloc(rounds, sizeof(double));
    uint32_t round = 0;
    begin();
    while (round < rounds && ok && now() < began + seconds) {
        uint32_t client = (uint32_t)((uint64_t)(round + 1) * 7919 % clients);
        session_withdraw(client);
        withdrawn[round] = reach(table_is_complete, began + 2 * seconds);
        sessions_run(never, now() + pause(round));
        session_announce(client);
        announced[round] = reach(table_is_complete, began + 2 * seconds);
        sessions_run(never, now() + pause(round));
        round += ok;
    }
    end("churn", now() - began);
    samples("withdraw", withdrawn, round);
    samples("announce", announced, round);
    free(withdrawn);
    free(announced);
}

static void some(void (*act)(uint32_t), uint32_t percent) {
    uint32_t count = clients * percent / 100;
    for (uint32_t i = 0; i < count; i++)
        act((uint32_t)((uint64_t)i * clients / count));
}

static void leave(uint32_t client) {
    session_close(client);
    table_announced(client, false);
}

static void come_back(uint32_t client) { session_connect(client, true); }

static void two_steps(const char *phase, void (*away)(uint32_t), double wait, void (*back)(uint32_t),
                      uint32_t percent, double seconds) {
    begin();
    some(away, percent);
    double first = reach(table_is_complete, began + seconds);
    sessions_run(never, now() + wait);
    double again = now();
    some(back, percent);
    reach(all_have_all, began + seconds + wait);
    double second = now() - again;
    end(phase, first + second);
    samples("steps", (double[]){first, second}, 2);
}

static void join(uint32_t times, double seconds) {
    double *joined = calloc(times, sizeof(double));
    uint32_t count = 0;
    begin();
    while (count < times && ok) {
        session_connect(clients, false);
        reach(joiner_is_up, began + seconds);
        reach(table_is_complete, began + seconds);
        joined[count] = now() - session_up_at(clients);
        count += ok;
        session_close(clients);
        sessions_run(never, now() + AWAY);
    }
    end("join", now() - began);
    samples("joined", joined, count);
    free(joined);
}

static void settle(double quiet, double seconds) {
    begin();
    while (now() < began + seconds && now() - (last_update_at() > began ? last_update_at() : began) < quiet)
        if (sessions_run(never, now() + quiet / 4))
            break;
    end("settle", now() - began);
}

int main(int argc, char **argv) {
    char line[256], word[16];
    if (argc != 4)
        return 2;
    clients = (uint32_t)atoi(argv[1]);
    each = (uint32_t)atoi(argv[2]);
    table_init(clients, each, clients + 1);
    update_init(clients, each);
    sessions_init(clients, each, clients + 1, (uint32_t)atoi(argv[3]));
    setvbuf(stdin, NULL, _IONBF, 0); /* epoll must see what stdio has not read */
    while (sessions_input(line, sizeof line)) {
        double a = 0, b = 0;
        if (sscanf(line, "%15s %lf %lf", word, &a, &b) < 2)
            return 2;
        if (!strcmp(word, "connect"))
            connect_all(false, a);
        else if (!strcmp(word, "announce"))
            announce(a);
        else if (!strcmp(word, "cold"))
            connect_all(true, a);
        else if (!strcmp(word, "churn"))
            churn((uint32_t)a, b);
        else if (!strcmp(word, "burst"))
            two_steps(word, session_withdraw, 0, session_announce, (uint32_t)a, b);
        else if (!strcmp(word, "lose"))
            two_steps(word, leave, AWAY, come_back, (uint32_t)a, b);
        else if (!strcmp(word, "join"))
            join((uint32_t)a, b);
        else if (!strcmp(word, "settle"))
            settle(a, b);
        else
            return 2;
        printf("}\n");
        fflush(stdout);
    }
    return 0;
}
