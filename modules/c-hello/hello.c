/* The module to start from in C: logs a greeting in each phase, and answers each datagram with one.
 *
 * Runs in every process, as every module does. Each function says in which process and when.
 */
#include <modhost.h>

/* Filled in by the host before init_f. */
static struct modhost_str greeting;

/* From the fork on, every child has its own copy of these two. */
static int own_rank;
static unsigned long greeted;

/* Each process counts for itself; "modhost stats" shows the sum. */
static struct modhost_counter greetings;

/* In main, before any fork, with the rights of the user who started the host. */
static int mod_init(void) {
    modhost_log(MODHOST_INFO, "%s from init_f, in main, before any fork", greeting.ptr);
    return modhost_counter(&greetings, "greetings", MODHOST_UNIT_NONE, "greetings sent");
}

static int mod_child(int rank) {
    switch (rank) {
    case PROC_INIT: /* in main, before any fork; the number of processes is known from here on */
        if (greeting.len == 0) {
            return modhost_error("parameter \"greeting\" is empty");
        }
        modhost_log(MODHOST_INFO, "%s from PROC_INIT: there will be %d processes", greeting.ptr, get_max_procs());
        break;
    case PROC_MAIN: /* in main; the workers are running; a module forks its own processes here */
        modhost_log(MODHOST_INFO, "%s from PROC_MAIN, in main, which has forked the workers", greeting.ptr);
        break;
    case PROC_POSTCHILDINIT: /* in main, after every process has finished its child init */
        modhost_log(MODHOST_INFO, "%s from PROC_POSTCHILDINIT: everybody is ready", greeting.ptr);
        break;
    default: /* in every forked process, before it does anything else */
        own_rank = rank;
        modhost_log(MODHOST_DEBUG, "%s from process %d of rank %d", greeting.ptr, process_no(), rank);
    }
    return 0;
}

/* In a worker, for each batch of datagrams. */
static int32_t greet(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        char answer[256];
        int len = snprintf(answer, sizeof(answer), "%s, you are number %lu at worker %d\n", greeting.ptr, ++greeted, own_rank);
        if (len >= (int)sizeof(answer)) {
            len = (int)sizeof(answer) - 1; /* snprintf has cut the text */
        }
        if (len < 0 || udp_reply(batch, i, answer, (size_t)len) < 0) {
            return modhost_error("cannot answer");
        }
        modhost_counter_add(greetings, 1);
    }
    return 0;
}

/* In main, after every child has ended. */
static void destroy(void) {
    modhost_log(MODHOST_INFO, "%s for the last time, from destroy_f", greeting.ptr);
}

static const struct modhost_param params[] = {
    {.name = "greeting", .kind = MODHOST_PARAM_STRING, .target = &greeting, .default_text = "hello", .help = "Text of the greeting."},
};

static const struct modhost_handler handlers[] = {
    {.name = "hello", .kind = MODHOST_HANDLER_UDP, .help = "Answers each datagram with a greeting.", .on_datagrams = greet},
};

MODULE_EXPORTS(
    .name = "c_hello", .version = "1.0.0", .summary = "greets in the log in each phase, and whoever sends a datagram",
    .header.flags = MODHOST_WANTS_POSTCHILDINIT, MODHOST_PARAMS(params), MODHOST_HANDLERS(handlers), .init_f = mod_init,
    .init_child_f = mod_child, .destroy_f = destroy);
