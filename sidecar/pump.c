/* The inner loop of the worker: waits for packets and writes them. A library that Python calls, and
 * that comes back when there is something to decide; no Python runs for each block that the kernel
 * hands over. All memory is the caller's, and of one thread. libpump.py declares it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define TURN 4096 /* packets of one interface, then it is the next one's turn */
#define MARKS 32
#define SECOND 1000000000
#define HEAD 16 /* of a record in a file */
#define LOST -1
#define BROKEN -2

/* As in <pcap/pcap.h>, which a build need not have. */
struct packet {
    struct timeval time;
    uint32_t kept, length;
};
typedef void handler(unsigned char *user, const struct packet *, const unsigned char *);
typedef int dispatch(void *handle, int most, handler *, unsigned char *user);
typedef void breakloop(void *handle);

struct library {
    dispatch *dispatch;
    breakloop *breakloop;
};

/* What all interfaces of one capture may still take together. */
struct budget {
    int64_t packets, bytes;
};

/* One interface and the segment that it fills. Times are of CLOCK_MONOTONIC, in nanoseconds. */
struct stream {
    const struct library *pcap;
    void *handle;
    struct budget *budget;
    unsigned char *buffer;       /* whole records that are not in the file yet */
    uint64_t room, held;         /* bytes of the buffer, and of what is in it */
    uint64_t position, packets;  /* of the segment; what is held included */
    uint64_t told;               /* the position up to which readers were let */
    uint64_t limit;              /* from this position on the segment is full */
    uint64_t mark_bytes, marked; /* ends of records are remembered so far apart; the last one */
    uint64_t missed;             /* packets that no place was found for */
    uint64_t marks[MARKS];
    int64_t flush_at, end_at; /* when readers want to have it, when the segment is too old */
    uint32_t marks_made;
    int32_t file;      /* the segment; -1: there is none yet */
    int32_t is_pipe;   /* it may take its time, and a signal ends the wait */
    int32_t is_wanted; /* packets wait, and there is no segment */
    int32_t is_lost;   /* libpcap cannot go on */
    int32_t error;     /* errno of a write: the file takes no more */
};

/* Take back what was written of a part, so that the file ends with a whole one. */
static void take_back(struct stream *s) {
    off_t end = (off_t)(s->position - s->held);
    if (lseek(s->file, end, SEEK_SET) != end || ftruncate(s->file, end))
        s->error = EIO; /* whatever it was: nothing may be written behind that */
}

/* Write what is held, and the first `more` bytes of a record behind it; all of it, or nothing. */
static int spill(struct stream *s, const uint32_t *head, const unsigned char *data, size_t more) {
    size_t of_head = more < HEAD ? more : HEAD;
    struct iovec parts[] = {
        {s->buffer, s->held}, {(void *)head, of_head}, {(void *)data, more - of_head}};
    int first = 0;
    while (first < 3) {
        ssize_t done = writev(s->file, parts + first, 3 - first);
        if (done < 0 && errno == EINTR && !s->is_pipe)
            continue;
        if (done < 0) {
            s->error = errno;
            if (!s->is_pipe)
                take_back(s);
            return -1;
        }
        while (first < 3 && (size_t)done >= parts[first].iov_len)
            done -= (ssize_t)parts[first++].iov_len;
        if (first < 3) {
            parts[first].iov_base = (char *)parts[first].iov_base + done;
            parts[first].iov_len -= (size_t)done;
        }
    }
    s->held = 0;
    return 0;
}

/* Hand everything to the file system; 0, or -1 when it did not take it all. */
int pump_flush(struct stream *s) {
    return s->error || (s->held && spill(s, 0, 0, 0)) ? -1 : 0;
}

static int is_full(const struct stream *s) {
    return s->position >= s->limit || s->budget->packets <= 0 || s->budget->bytes <= 0 ||
           s->marks_made == MARKS || s->error;
}

static void keep(unsigned char *user, const struct packet *p, const unsigned char *data) {
    struct stream *s = (struct stream *)user;
    uint32_t head[] = {(uint32_t)p->time.tv_sec, (uint32_t)p->time.tv_usec, p->kept, p->length};
    uint64_t size = HEAD + p->kept;
    /* Writes end where a multiple of the buffer's size ends in the file: for these a file system
     * has few large pages, and for others many small ones. */
    uint64_t end = s->position + size, whole = end - end % s->room;
    size_t gone = whole > s->position ? whole - s->position : 0;
    if (s->error || (gone && spill(s, head, data, gone))) {
        s->missed++;
        s->pcap->breakloop(s->handle);
        return;
    }
    size_t of_head = gone < HEAD ? gone : HEAD;
    memcpy(s->buffer + s->held, (char *)head + of_head, HEAD - of_head);
    s->held += HEAD - of_head;
    memcpy(s->buffer + s->held, data + (gone - of_head), p->kept - (gone - of_head));
    s->held += p->kept - (gone - of_head);
    s->budget->packets--;
    /* A segment counts from its first packet on, and then with its header. */
    s->budget->bytes -= (int64_t)(s->packets ? size : size + s->position);
    s->position += size;
    s->packets++;
    if (s->position - s->marked >= s->mark_bytes)
        s->marks[s->marks_made++] = s->marked = s->position;
    if (is_full(s))
        s->pcap->breakloop(s->handle);
}

/* Write what waits, as far as it may be written here; whether there is something to decide. */
int pump_take(struct stream *s) {
    s->is_wanted = s->file < 0;
    if (!s->is_wanted && !is_full(s)) {
        uint64_t before = s->packets;
        int count = s->pcap->dispatch(s->handle, TURN, keep, (unsigned char *)s);
        /* Of the last time, it says only now. */
        if (count == BROKEN && s->packets == before && !s->error)
            count = s->pcap->dispatch(s->handle, TURN, keep, (unsigned char *)s);
        s->is_lost = count == LOST;
    }
    return s->is_wanted || s->is_lost || is_full(s);
}

/* When time asks for something. */
static int64_t due(const struct stream *s) {
    int64_t at = s->packets ? s->end_at : INT64_MAX;
    return s->position != s->told && s->flush_at < at ? s->flush_at : at;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t first_due(struct stream *const *streams, uint32_t count, int64_t until) {
    for (uint32_t i = 0; i < count; i++)
        until = due(streams[i]) < until ? due(streams[i]) : until;
    return until;
}

/* Write packets until there is something to decide, one of the others is ready, or `until`.
 * The first `others` of `fds` are the others; the streams' follow, in their order. The kernel calls
 * a stream's readable as long as a packet of it waits. */
void pump_run(struct pollfd *fds, uint32_t others, struct stream *const *streams, uint32_t count,
              int64_t until) {
    for (int is_over = 0; !is_over;) {
        int64_t left = first_due(streams, count, until) - now();
        left = left < 0 ? 0 : left;
        struct timespec wait = {(time_t)(left / SECOND), (long)(left % SECOND)};
        if (ppoll(fds, others + count, &wait, 0) < 0) {
            for (uint32_t i = 0; i < others + count; i++)
                fds[i].revents = 0;
            return; /* a signal: Python has to see it */
        }
        for (uint32_t i = 0; i < others; i++)
            is_over |= fds[i].revents;
        for (uint32_t i = 0; i < count; i++)
            if (fds[others + i].revents)
                is_over |= pump_take(streams[i]);
        is_over |= first_due(streams, count, until) <= now();
    }
}
