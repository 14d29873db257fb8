/* Answers each datagram with a number that all workers share; a process of the module logs the
 * count. */
#include <inttypes.h>
#include <time.h>

#include <modhost.h>

/* The host writes the configured value here before mod_init. */
static int64_t period_ns;

/* The same memory in every process. */
static uint64_t *answered;

/* Runs in the reporter. It never returns: the host stops it with a signal. */
static int32_t report(void *data) {
    const struct timespec period = {.tv_sec = period_ns / 1000000000, .tv_nsec = period_ns % 1000000000};
    (void)data;
    while (nanosleep(&period, NULL) == 0)
        modhost_log(MODHOST_INFO, "report answered=%" PRIu64, __atomic_load_n(answered, __ATOMIC_RELAXED));
    return 0;
}

/* Runs in the workers. */
static int32_t count(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        char text[24];
        int len = snprintf(text, sizeof text, "%" PRIu64, __atomic_add_fetch(answered, 1, __ATOMIC_RELAXED));
        if (udp_reply(batch, i, text, (size_t)len) < 0)
            modhost_log(MODHOST_WARN, "no answer");
    }
    return 0;
}

/* Runs in main, before any fork. */
static int mod_init(void) {
    if (register_procs(1) < 0)
        return modhost_error("cannot register the reporter");
    answered = shm_calloc(1, sizeof *answered); /* zeroed */
    return answered ? 0 : modhost_error("no shared memory for the counter");
}

/* Runs in main for PROC_INIT and PROC_MAIN, and once in each forked process. */
static int mod_child(int rank) {
    if (rank == PROC_MAIN && fork_process_entry(1, "reporter", 0, report, NULL) < 0)
        return modhost_error("cannot fork the reporter");
    return 0;
}

static const struct modhost_param params[] = {
    {.name = "period", .kind = MODHOST_PARAM_DURATION, .target = &period_ns, .default_text = "10s", .help = "Time between two reports."},
};

static const struct modhost_handler handlers[] = {
    {.name = "count",
     .kind = MODHOST_HANDLER_UDP,
     .help = "Answers each datagram with the number of datagrams so far.",
     .on_datagrams = count},
};

MODULE_EXPORTS(.name = "outside_c", .version = "0.1.0", .summary = "answers with a running number; an example", MODHOST_PARAMS(params),
               MODHOST_HANDLERS(handlers), .init_f = mod_init, .init_child_f = mod_child);
