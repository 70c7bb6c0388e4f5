/* The sockets of the emulated clients, in one epoll: connect, answer, announce, parse, check.
 *
 * Each client is bound to its own address (IP_FREEBIND: the namespace takes the whole range as local).
 * At most `window` connections are on their way at once, so that no speaker's accept queue overflows; a
 * refused, lost or unanswered one is tried again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loadgen.h"

#define RETRY 0.2
#define ANSWER 30.0               /* a speaker that does not establish a connection by then gets another */
#define KEEPALIVE_EVERY 60
#define EVENTS 1024
#define INPUT UINT32_MAX          /* epoll's mark for stdin */

enum state { IDLE, QUEUED, CONNECTING, OPEN_SENT, OPEN_CONFIRM, UP };

struct session {
    int fd;
    enum state state;
    bool announce_when_up;
    uint32_t tail_length, pending_length;
    uint8_t *tail;                /* the beginning of a message that is not whole yet */
    uint8_t *pending;             /* what the socket did not take */
    double started_at, up_at, retry_at;
};

struct counts counts;
static struct session *sessions;
static uint32_t *queue;           /* a ring of clients that are to connect */
static uint32_t total, each, clients, window, queue_head, queue_length, in_progress, ups;
static double update_at;
static int poller, ticks;

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double last_update_at(void) { return update_at; }
bool session_is_up(uint32_t client) { return sessions[client].state == UP; }
double session_up_at(uint32_t client) { return sessions[client].up_at; }
uint32_t sessions_up(void) { return ups; }

static void watch(int operation, int fd, uint32_t events, uint32_t mark) {
    struct epoll_event event = {.events = events, .data.u32 = mark};
    if (epoll_ctl(poller, operation, fd, &event))
        perror("epoll_ctl");
}

void sessions_init(uint32_t client_count, uint32_t prefixes_each, uint32_t receivers, uint32_t most) {
    clients = client_count;
    each = prefixes_each;
    total = receivers;
    window = most;
    sessions = calloc(total, sizeof *sessions);
    queue = calloc(total, sizeof *queue);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!sessions || !queue || poller < 0)
        abort();
    watch(EPOLL_CTL_ADD, 0, EPOLLIN, INPUT);
}

static void enqueue(uint32_t client, double retry_at) {
    sessions[client].state = QUEUED;
    sessions[client].retry_at = retry_at;
    queue[(queue_head + queue_length++) % total] = client;
}

void session_connect(uint32_t client, bool announce_when_up) {
    if (sessions[client].state != IDLE)
        return;
    sessions[client].announce_when_up = announce_when_up;
    enqueue(client, 0);
}

void session_close(uint32_t client) {
    struct session *s = sessions + client;
    if (s->state == UP)
        ups--;
    else if (s->state > QUEUED)
        in_progress--;
    if (s->state > QUEUED)
        close(s->fd);
    table_down(client);
    free(s->pending);
    s->pending = NULL;
    s->tail_length = s->pending_length = 0;
    s->state = IDLE;
}

static void failed(uint32_t client) {
    bool was_up = sessions[client].state == UP;
    session_close(client);
    if (was_up) {
        counts.lost++;
        if (client < clients)
            table_announced(client, false);
    } else {
        counts.retries++;
        enqueue(client, now() + RETRY);
    }
}

static void send_all(uint32_t client, const uint8_t *data, size_t length) {
    struct session *s = sessions + client;
    ssize_t sent = 0;
    if (!s->pending_length) {
        sent = send(s->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            sent = 0;             /* a dead socket is found by reading */
        if ((size_t)sent == length)
            return;
        watch(EPOLL_CTL_MOD, s->fd, EPOLLIN | EPOLLOUT, client);
    }
    size_t rest = length - (size_t)sent;
    s->pending = realloc(s->pending, s->pending_length + rest);
    if (!s->pending)
        abort();
    memcpy(s->pending + s->pending_length, data + sent, rest);
    s->pending_length += (uint32_t)rest;
}

static void send_pending(uint32_t client) {
    struct session *s = sessions + client;
    ssize_t sent = send(s->fd, s->pending, s->pending_length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0)
        return;
    s->pending_length -= (uint32_t)sent;
    memmove(s->pending, s->pending + sent, s->pending_length);
    if (!s->pending_length)
        watch(EPOLL_CTL_MOD, s->fd, EPOLLIN, client);
}

static void each_message(uint32_t client, bool announce) {
    uint8_t message[MAX_MESSAGE];
    uint32_t first = client * each, end = first + each, count;
    for (; first < end; first += count) {
        count = end - first < PREFIXES_A_MESSAGE ? end - first : PREFIXES_A_MESSAGE;
        size_t length = announce ? announcement(message, client, first, count) : withdrawal(message, first, count);
        send_all(client, message, length);
    }
}

void session_announce(uint32_t client) {
    if (sessions[client].state != UP)
        return;
    table_announced(client, true);
    each_message(client, true);
}

void session_withdraw(uint32_t client) {
    if (sessions[client].state != UP)
        return;
    table_announced(client, false);
    each_message(client, false);
}

static void start(uint32_t client) {
    struct session *s = sessions + client;
    int on = 1;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(FIRST_CLIENT + client)};
    struct sockaddr_in remote = {AF_INET, htons(PORT), {htonl(REFLECTOR)}, {0}};
    in_progress++;
    s->state = CONNECTING;
    s->started_at = now();
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(s->fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(s->fd, (struct sockaddr *)&local, sizeof local)) {
        perror("bind");
        exit(1);
    }
    if (connect(s->fd, (struct sockaddr *)&remote, sizeof remote) && errno != EINPROGRESS) {
        failed(client);
        return;
    }
    watch(EPOLL_CTL_ADD, s->fd, EPOLLIN | EPOLLOUT, client);
}

static void start_some(void) {
    while (queue_length && in_progress < window) {
        uint32_t client = queue[queue_head];
        if (sessions[client].state == QUEUED && sessions[client].retry_at > now())
            return;
        queue_head = (queue_head + 1) % total;
        queue_length--;
        if (sessions[client].state == QUEUED)
            start(client);
    }
}

static void connected(uint32_t client) {
    int error = 0;
    socklen_t size = sizeof error;
    uint8_t message[MAX_MESSAGE];
    struct session *s = sessions + client;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        failed(client);
        return;
    }
    s->state = OPEN_SENT;
    watch(EPOLL_CTL_MOD, s->fd, EPOLLIN, client);
    send_all(client, message, open_message(message, FIRST_CLIENT + client));
}

static void became_up(uint32_t client) {
    struct session *s = sessions + client;
    s->state = UP;
    s->up_at = now();
    in_progress--;
    ups++;
    table_up(client);
    if (s->announce_when_up)
        session_announce(client);
}

/* False: the session cannot go on. */
static bool message(uint32_t client, const uint8_t *p, uint32_t length) {
    struct session *s = sessions + client;
    uint8_t answer[MAX_MESSAGE];
    counts.messages++;
    switch (p[18]) {
    case UPDATE:
        if (s->state != UP || !update_is_sound(client, p + HEADER, p + length)) {
            counts.malformed++;
            return false;
        }
        return true;
    case KEEPALIVE:
        if (s->state == OPEN_CONFIRM)
            became_up(client);
        else if (s->state == UP)
            send_all(client, answer, keepalive(answer));
        return true;
    case OPEN:
        s->state = OPEN_CONFIRM;
        send_all(client, answer, keepalive(answer));
        return true;
    case NOTIFICATION:
        fprintf(stderr, "client %u: NOTIFICATION %u/%u\n", client, p[19], p[20]);
        return false;
    default:
        return true;
    }
}

static void readable(uint32_t client) {
    static uint8_t buffer[MAX_MESSAGE + (1 << 18)];
    struct session *s = sessions + client;
    memcpy(buffer, s->tail, s->tail_length);
    ssize_t got = recv(s->fd, buffer + s->tail_length, 1 << 18, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        failed(client);
        return;
    }
    counts.bytes += (uint64_t)got;
    uint64_t updates = counts.updates;
    const uint8_t *p = buffer, *end = buffer + s->tail_length + got;
    while (end - p >= HEADER) {
        uint32_t length = get16(p + 16);
        if (length < HEADER || length > MAX_MESSAGE) {
            counts.malformed++;
            failed(client);
            return;
        }
        if (end - p < length)
            break;
        if (!message(client, p, length)) {
            failed(client);
            return;
        }
        p += length;
    }
    if (counts.updates != updates)
        update_at = now();
    if (!s->tail && !(s->tail = malloc(MAX_MESSAGE)))
        abort();
    s->tail_length = (uint32_t)(end - p);
    memcpy(s->tail, p, s->tail_length);
}

static void every_second(void) {
    uint8_t message[HEADER];
    int tick = (int)now();
    if (tick == ticks)
        return;
    ticks = tick;
    keepalive(message);
    for (uint32_t client = (uint32_t)tick % KEEPALIVE_EVERY; client < total; client += KEEPALIVE_EVERY)
        if (sessions[client].state == UP)
            send_all(client, message, HEADER);
    for (uint32_t client = 0; client < total; client++)
        if (sessions[client].state > QUEUED && sessions[client].state < UP &&
            sessions[client].started_at + ANSWER < now())
            failed(client);
}

static bool turn(bool (*done)(void), double until, bool *input) {
    struct epoll_event events[EVENTS];
    every_second();
    start_some();
    double wait = until - now();
    wait = wait < 0 ? 0 : queue_length && wait > 0.05 ? 0.05 : wait > 0.5 ? 0.5 : wait;
    int count = epoll_wait(poller, events, EVENTS, (int)(wait * 1000 + 0.999));
    for (int i = 0; i < count; i++) {
        uint32_t client = events[i].data.u32;
        if (client == INPUT) {
            *input = true;
            continue;
        }
        enum state state = sessions[client].state;
        if (state == CONNECTING)
            connected(client);
        else if (state > CONNECTING) {
            if (events[i].events & EPOLLOUT && sessions[client].pending_length)
                send_pending(client);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                readable(client);
        }
        if (done && done())
            return true;
    }
    return done && done();
}

bool sessions_run(bool (*done)(void), double deadline) {
    bool input = false;
    do
        if (turn(done, deadline, &input))
            return true;
    while (now() < deadline && !input);
    return false;
}

bool sessions_input(char *line, size_t size) {
    bool input = false;
    while (!input)
        turn(NULL, now() + 0.5, &input);
    return fgets(line, (int)size, stdin) != NULL;
}
