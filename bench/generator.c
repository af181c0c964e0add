/* Numbered UDP packets at a fixed rate.
 *   generator ADDRESS PORT FRAME_BYTES RATE COUNT
 * FRAME_BYTES is the Ethernet frame without its checksum; RATE is in packets per second, 0 for as
 * fast as it goes. Each payload begins with its number, 64 bits, little-endian. Packets leave in
 * bursts of one UDP_SEGMENT send, at most about a millisecond's worth. Prints what it did. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define HEADERS 42 /* Ethernet, IPv4, UDP */
#define MOST_SEGMENTS 64
#define MOST_BYTES 65000

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void wait_until(double when) {
    /* The scheduler wakes us too late for the last bit. */
    double left = when - now() - 100e-6;
    if (left > 0)
        nanosleep(&(struct timespec){(time_t)left, (long)((left - (time_t)left) * 1e9)}, 0);
    while (now() < when)
        ;
}

int main(int argc, char **argv) {
    if (argc != 6)
        return fprintf(stderr, "usage: generator ADDRESS PORT FRAME_BYTES RATE COUNT\n"), 2;
    int size = atoi(argv[3]) - HEADERS;
    double rate = atof(argv[4]);
    uint64_t count = strtoull(argv[5], 0, 10), sent = 0, calls = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    static char buffer[MOST_BYTES];
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || size < 8 || size > 1472)
        return fprintf(stderr, "bad address or size\n"), 2;
    uint64_t burst = MOST_BYTES / (uint64_t)size;
    burst = burst < MOST_SEGMENTS ? burst : MOST_SEGMENTS;
    if (rate > 0 && (double)burst > rate / 1000)
        burst = rate / 1000 < 1 ? 1 : (uint64_t)(rate / 1000);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 8 << 20;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) ||
        setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size))
        return perror("socket"), 1;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    double start = now();
    while (sent < count) {
        uint64_t batch = count - sent < burst ? count - sent : burst;
        for (uint64_t i = 0; i < batch; i++) {
            uint64_t number = sent + i;
            memcpy(buffer + i * (uint64_t)size, &number, sizeof number);
        }
        if (rate > 0)
            wait_until(start + (double)sent / rate);
        /* That nobody listened to an earlier packet is told once, and nothing is sent. */
        while (send(fd, buffer, batch * (uint64_t)size, 0) < 0)
            if (errno != ECONNREFUSED)
                return perror("send"), 1;
        sent += batch, calls++;
    }
    printf("{\"sent\": %llu, \"seconds\": %.6f, \"bursts\": %llu}\n", (unsigned long long)sent,
           now() - start, (unsigned long long)calls);
    return 0;
}
