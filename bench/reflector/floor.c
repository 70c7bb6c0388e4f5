/* The floor: the least that a process can do to write the same bytes to the same sockets.
 *
 * floor CLIENTS.  One shared log of reflected messages and a cursor a client: no RIB, no decision, no
 * policy, no timers, no bounds; whatever is malformed ends it.  It is not a reflector. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bgp.h"

#define PIECES 64
#define EVENTS 1024
#define LISTENER UINT32_MAX

struct range { size_t start, end; };

struct client {
    int fd;                       /* 0: not connected */
    bool established, waiting;    /* waiting: the socket takes no more for now */
    size_t position;              /* in the log */
    struct range *own;            /* its own messages in the log, which it does not get */
    uint32_t own_count, own_size, own_next;
    uint8_t *announced;           /* its reflected announcements, for the withdrawal and a new log */
    size_t announced_length;
    uint8_t tail[MAX_MESSAGE];
    size_t tail_length;
};

static struct client *clients;
static uint32_t total;
static uint8_t *text;
static size_t length, size, dead;
static int poller;

static void *need(void *memory) {
    if (!memory)
        abort();
    return memory;
}

static void watch(int operation, int fd, uint32_t events, uint32_t mark) {
    struct epoll_event event = {.events = events, .data.u32 = mark};
    epoll_ctl(poller, operation, fd, &event);
}

static void append(struct client *c, const uint8_t *data, size_t count) {
    if (length + count > size)
        text = need(realloc(text, size = 2 * (length + count)));
    memcpy(text + length, data, count);
    if (c->own_next < c->own_count && c->own[c->own_count - 1].end == length) {
        c->own[c->own_count - 1].end += count;
    } else {
        if (c->own_count == c->own_size)
            c->own = need(realloc(c->own, (c->own_size = 2 * c->own_size + 4) * sizeof *c->own));
        c->own[c->own_count++] = (struct range){length, length + count};
    }
    length += count;
}

/* The log again from what is announced now; every cursor is at its end. */
static void compact(void) {
    for (uint32_t i = 0; i < total; i++)
        if (clients[i].established && clients[i].position != length)
            return;
    length = dead = 0;
    for (uint32_t i = 0; i < total; i++) {
        clients[i].own_count = clients[i].own_next = 0;
        append(clients + i, clients[i].announced, clients[i].announced_length);
    }
    for (uint32_t i = 0; i < total; i++) {
        clients[i].position = length;
        clients[i].own_next = clients[i].own_count;
    }
}

static void send_log(uint32_t i) {
    struct client *c = clients + i;
    while (c->established && !c->waiting && c->position < length) {
        struct iovec pieces[PIECES];
        int count = 0;
        size_t at = c->position, sent;
        for (uint32_t own = c->own_next; count < PIECES && at < length; own++) {
            size_t end = own < c->own_count ? c->own[own].start : length;
            if (at < end)
                pieces[count++] = (struct iovec){text + at, end - at};
            at = own < c->own_count ? c->own[own].end : length;
        }
        ssize_t written = count ? writev(c->fd, pieces, count) : 0;
        c->waiting = written < 0;
        if (c->waiting)
            watch(EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, i);
        for (sent = written > 0 ? (size_t)written : 0;;) {
            size_t end = c->own_next < c->own_count ? c->own[c->own_next].start : length;
            size_t step = end - c->position < sent ? end - c->position : sent;
            c->position += step;
            sent -= step;
            if (c->position != end || c->own_next == c->own_count)
                break;
            c->position = c->own[c->own_next++].end;
        }
    }
}

static void reflect(struct client *c, const uint8_t *message, size_t count) {
    uint8_t out[MAX_MESSAGE + 14];
    size_t withdrawn = get16(message + HEADER), at = HEADER + 4 + withdrawn;
    size_t attributes = get16(message + at - 2);
    if (!attributes) {
        append(c, message, count);
        dead += count + c->announced_length;
        c->announced_length = 0;
        return;
    }
    memcpy(out, message, at + attributes);
    put16(out + at - 2, (uint32_t)attributes + 14);
    put32(out + at + attributes, 0x80u << 24 | A_ORIGINATOR_ID << 16 | 4 << 8);
    put32(out + at + attributes + 3, FIRST_CLIENT + (uint32_t)(c - clients));
    put32(out + at + attributes + 7, 0x80u << 24 | A_CLUSTER_LIST << 16 | 4 << 8);
    put32(out + at + attributes + 10, REFLECTOR);
    memcpy(out + at + attributes + 14, message + at + attributes, count - at - attributes);
    put16(out + 16, (uint32_t)count + 14);
    append(c, out, count + 14);
    c->announced = need(realloc(c->announced, c->announced_length + count + 14));
    memcpy(c->announced + c->announced_length, out, count + 14);
    c->announced_length += count + 14;
}

static void gone(struct client *c) {
    const uint8_t *end = c->announced + c->announced_length, *p = c->announced;
    uint8_t message[MAX_MESSAGE];
    close(c->fd);
    c->fd = 0;
    c->established = c->waiting = false;
    c->tail_length = 0;
    while (p < end) {
        const uint8_t *prefixes = p + HEADER + 4 + get16(p + HEADER + 2);
        size_t count = (size_t)(p + get16(p + 16) - prefixes) / 4;
        append(c, message, withdrawal(message, get24(prefixes + 1) - FIRST_PREFIX, (uint32_t)count));
        p += get16(p + 16);
    }
    dead += 2 * c->announced_length;
    c->announced_length = 0;
}

static void received(struct client *c, const uint8_t *message, size_t count) {
    uint8_t answer[2 * MAX_MESSAGE];
    if (message[18] == UPDATE && count > HEADER + 4) {
        reflect(c, message, count);
    } else if (message[18] == OPEN) {
        size_t opened = open_message(answer, REFLECTOR);
        if (write(c->fd, answer, opened + keepalive(answer + opened)) < 0)
            exit(1);
    } else if (message[18] == KEEPALIVE && !c->established) {
        c->established = true;
        c->position = 0;
        c->own_next = 0;
    }
}

static void readable(uint32_t i) {
    static uint8_t buffer[MAX_MESSAGE + (1 << 16)];
    struct client *c = clients + i;
    memcpy(buffer, c->tail, c->tail_length);
    ssize_t got = recv(c->fd, buffer + c->tail_length, 1 << 16, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR))
            gone(c);
        return;
    }
    const uint8_t *p = buffer, *end = buffer + c->tail_length + got;
    for (; end - p >= HEADER && end - p >= get16(p + 16); p += get16(p + 16))
        received(c, p, get16(p + 16));
    c->tail_length = (size_t)(end - p);
    memcpy(c->tail, p, c->tail_length);
}

static void accept_some(int listener) {
    struct sockaddr_in from;
    socklen_t from_size = sizeof from;
    int on = 1, fd;
    while ((fd = accept4(listener, (struct sockaddr *)&from, &from_size, SOCK_NONBLOCK)) >= 0) {
        uint32_t i = ntohl(from.sin_addr.s_addr) - FIRST_CLIENT;
        if (i >= total || clients[i].fd)
            exit(1);
        clients[i].fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, i);
    }
}

static int listen_there(void) {
    struct sockaddr_in local = {AF_INET, htons(PORT), {htonl(REFLECTOR)}, {0}};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&local, sizeof local) || listen(listener, 4096)) {
        perror("listen");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    if (argc != 2)
        return 2;
    total = (uint32_t)atoi(argv[1]) + 1;
    clients = need(calloc(total, sizeof *clients));
    text = need(malloc(size = 1 << 20));
    poller = epoll_create1(0);
    int listener = listen_there(), count;
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, LISTENER);
    for (;;) {
        count = epoll_wait(poller, events, EVENTS, -1);
        for (int e = 0; e < count; e++) {
            uint32_t i = events[e].data.u32;
            if (i == LISTENER) {
                accept_some(listener);
                continue;
            }
            if (events[e].events & EPOLLOUT) {
                clients[i].waiting = false;
                watch(EPOLL_CTL_MOD, clients[i].fd, EPOLLIN, i);
            }
            if (clients[i].fd && events[e].events & ~(uint32_t)EPOLLOUT)
                readable(i);
        }
        for (uint32_t i = 0; i < total; i++)
            send_log(i);
        if (dead > length / 4)
            compact();
    }
}
