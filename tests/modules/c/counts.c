/* Counts on command, in any process and thread, and attempts impossible registrations. For the
 * promises about counters: sums over processes, threads and deaths; refusals with a code. Answers
 * with the first unexpected result. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <modhost.h>

#define EXPECT(expected, call) \
    do { \
        long long got = (long long)(call); \
        if (got != (expected)) \
            return modhost_error("%s gives %lld, not %lld", #call, got, (long long)(expected)); \
    } while (0)

static uint32_t misuse;
static struct modhost_counter counted, in_proc_init, never_registered;
static struct modhost_gauge own, shared;
static struct modhost_histogram took, sizes;
static const uint64_t bounds[] = {10, 100};

static const struct modhost_param params[] = {
    {.name = "misuse", .kind = MODHOST_PARAM_BOOL, .target = &misuse, .help = "Register what cannot be registered"},
};

static int wrong_names(void) {
    struct modhost_counter counter;
    struct modhost_gauge gauge;
    struct modhost_histogram histogram;
    static const uint64_t descending[] = {2, 1};
    struct modhost_stat_info info;
    EXPECT(MODHOST_E_PHASE, modhost_stat_info(0, &info));
    EXPECT(MODHOST_E_INVALID, modhost_counter(&counter, "counted", 0, "twice"));
    EXPECT(0, (intptr_t)counter.first);
    modhost_counter_add(counter, 1);
    EXPECT(MODHOST_E_INVALID, modhost_counter(&counter, "Big", 0, "no name"));
    EXPECT(MODHOST_E_INVALID, modhost_counter(&counter, NULL, 0, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_counter(&counter, "unit", 99, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_gauge(&gauge, "flags", 0, 8, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_histogram(&histogram, "descending", 0, descending, 2, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_histogram(&histogram, "too_many", 0, bounds, 65, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_slot.api->stat_register(modhost_slot.module, NULL, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_slot.api->stat_register(NULL, NULL, NULL));
    return 0;
}

static int init(void) {
    modhost_counter_add(never_registered, 1);
    EXPECT(0, modhost_counter(&counted, "counted", MODHOST_UNIT_NONE, "what it was told to count"));
    EXPECT(0, modhost_gauge(&own, "own", MODHOST_UNIT_BYTES, 0, "what each process has"));
    EXPECT(0, modhost_gauge(&shared, "shared", MODHOST_UNIT_NONE, MODHOST_STAT_SHARED, "what all have"));
    EXPECT(0, modhost_histogram(&took, "took", MODHOST_UNIT_NS, NULL, 0, "times"));
    EXPECT(0, misuse ? wrong_names() : 0);
    modhost_counter_add(counted, 1000000);
    return 0;
}

static int proc_init(void) {
    uint64_t words[4] = {7, 7, 7, 7};
    struct modhost_stat_info info;
    uint32_t index = 0;
    EXPECT(0, modhost_histogram(&sizes, "sizes", MODHOST_UNIT_BYTES, bounds, 2, "sizes"));
    EXPECT(0, modhost_counter(&in_proc_init, "in_proc_init", MODHOST_UNIT_NONE, NULL));
    modhost_counter_add(counted, 1);
    while (modhost_stat_info(index, &info) == 0 && strcmp(info.name, "counted") != 0) {
        index++;
    }
    EXPECT(0, strcmp(info.module, "counts"));
    EXPECT(1, modhost_stat_read(index, MODHOST_STAT_ALL, words, 4));
    EXPECT(1000001, words[0]);
    EXPECT(7, words[1]);
    EXPECT(1, modhost_stat_read(index, MODHOST_STAT_ALL, words, 0));
    EXPECT(MODHOST_E_INVALID, modhost_stat_read(index, 100000, words, 1));
    EXPECT(MODHOST_E_INVALID, modhost_stat_read(index, -7, words, 1));
    EXPECT(MODHOST_E_INVALID, modhost_stat_read(index, 0, NULL, 1));
    EXPECT(MODHOST_E_INVALID, modhost_stat_read(100000, 0, words, 1));
    EXPECT(MODHOST_E_INVALID, modhost_stat_info(100000, &info));
    EXPECT(MODHOST_E_INVALID, modhost_slot.api->stat_info(modhost_slot.module, 0, NULL));
    return 0;
}

static int child(int rank) {
    return rank == PROC_INIT ? proc_init() : 0;
}

static void *count_in_thread(void *amount) {
    for (uint64_t i = 0; i < *(uint64_t *)amount; i++) {
        modhost_counter_add(counted, 1);
    }
    return NULL;
}

/* Two threads at once, besides this one. */
static int threads(uint64_t amount) {
    pthread_t first, second;
    EXPECT(0, pthread_create(&first, NULL, count_in_thread, &amount));
    EXPECT(0, pthread_create(&second, NULL, count_in_thread, &amount));
    count_in_thread(&amount);
    EXPECT(0, pthread_join(first, NULL));
    EXPECT(0, pthread_join(second, NULL));
    return 0;
}

/* Two processes that the host did not fork. */
static int outside(uint64_t amount) {
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            count_in_thread(&amount);
            modhost_gauge_add(own, 1);
            _exit(0);
        }
    }
    for (int i = 0; i < 2; i++) {
        EXPECT(pids[i], waitpid(pids[i], NULL, 0));
    }
    return 0;
}

/* The pid in a row of the process table, after a check of the other fields. */
static int row(uint32_t at) {
    struct modhost_process_row row;
    EXPECT(0, modhost_process_at(at, &row));
    EXPECT(at, row.process_no);
    EXPECT(1, row.state == MODHOST_PROCESS_STARTING || row.state == MODHOST_PROCESS_SERVING);
    EXPECT(1, row.uptime_ns > 0 && strlen(row.name) > 0);
    if (at == (uint32_t)process_no()) {
        EXPECT(getpid(), row.pid);
        EXPECT(0, strcmp(row.module, "counts"));
        EXPECT(0, strcmp(row.phase, "a datagram handler"));
    }
    return row.pid;
}

/* The same in a thread. */
static void *row_in_thread(void *at) {
    static int pid;
    pid = row(*(uint32_t *)at);
    return &pid;
}

static int host(void) {
    struct modhost_host_info info;
    EXPECT(0, modhost_host_info(&info));
    EXPECT(1, info.version[0] >= '0' && info.version[0] <= '9');
    return info.pid;
}

static int obey(const char *order, uint64_t amount) {
    struct modhost_counter late;
    pthread_t thread;
    void *pid = NULL;
    if (strcmp(order, "count") == 0) {
        modhost_counter_add(counted, amount);
    } else if (strcmp(order, "own") == 0) {
        modhost_gauge_add(own, (int64_t)amount);
    } else if (strcmp(order, "set") == 0) {
        modhost_gauge_set(own, (int64_t)amount);
    } else if (strcmp(order, "shared") == 0) {
        modhost_gauge_add(shared, (int64_t)amount);
    } else if (strcmp(order, "took") == 0) {
        modhost_histogram_record(took, amount);
        modhost_histogram_record(sizes, amount);
    } else if (strcmp(order, "threads") == 0) {
        return threads(amount);
    } else if (strcmp(order, "outside") == 0) {
        return outside(amount);
    } else if (strcmp(order, "late") == 0) {
        return modhost_counter(&late, "late", 0, "too late");
    } else if (strcmp(order, "row") == 0) {
        return row((uint32_t)amount);
    } else if (strcmp(order, "row_in_thread") == 0) {
        uint32_t at = (uint32_t)amount;
        EXPECT(0, pthread_create(&thread, NULL, row_in_thread, &at));
        EXPECT(0, pthread_join(thread, &pid));
        return *(int *)pid;
    } else if (strcmp(order, "host") == 0) {
        return host();
    } else if (strcmp(order, "garbage") == 0) {
        /* Overwrites all counter cells of this process, as a faulty module might. */
        memset((void *)((uintptr_t)took.first + modhost_slot.stat_home->own), (int)amount, 253 * 8);
        memset((void *)((uintptr_t)shared.first + modhost_slot.stat_home->own), (int)amount, 8);
    } else if (strcmp(order, "die") == 0) {
        abort();
    }
    return 0;
}

static int32_t serve(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct modhost_datagram *datagram = modhost_datagram_at(batch, i);
        char text[64] = {0}, order[64] = {0}, answer[32];
        long long amount = 0;
        memcpy(text, datagram->data, datagram->len < sizeof text ? datagram->len : sizeof text - 1);
        if (sscanf(text, "%63s %lld", order, &amount) >= 1) {
            int code = obey(order, (uint64_t)amount);
            int length = snprintf(answer, sizeof answer, "%d %d", process_no(), code);
            if (udp_reply(batch, i, answer, (size_t)length) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static const struct modhost_handler handlers[] = {{.name = "serve", .kind = MODHOST_HANDLER_UDP, .on_datagrams = serve}};

MODULE_EXPORTS(.name = "counts", .version = "1", .init_f = init, .init_child_f = child, MODHOST_PARAMS(params), MODHOST_HANDLERS(handlers));
