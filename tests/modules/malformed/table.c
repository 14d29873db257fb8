/* A module whose exports table and note are set by -D options: for files that the host must refuse,
 * and for odd ones that it must load. */
#include <pthread.h>
#include <stdlib.h>
#include <modhost.h>

#ifndef NAME
#define NAME "table"
#endif
#ifndef VERSION
#define VERSION "1.0"
#endif
#ifndef MAGIC
#define MAGIC MODHOST_MODULE_MAGIC
#endif
#ifndef MAJOR
#define MAJOR 1
#endif
#ifndef MINOR
#define MINOR 0
#endif
#ifndef NEEDS
#define NEEDS 0
#endif
#ifndef FLAGS
#define FLAGS 0
#endif
#ifndef SIZE
#define SIZE sizeof(struct table)
#endif
#ifndef SLOT
#define SLOT &modhost_slot
#endif
#ifndef PARAMS
#define PARAMS MODHOST_PARAMS(params)
#endif
#ifndef HANDLERS
#define HANDLERS MODHOST_HANDLERS(handlers)
#endif
#ifndef INIT
#define INIT init
#endif

struct modhost_slot modhost_slot;

/* Interfaces. */
struct calls {
    int32_t (*first)(uint32_t number);
    int32_t (*second)(void);
};
__attribute__((unused)) static const struct calls calls;
__attribute__((unused)) static const struct calls *bound;
__attribute__((unused)) static const struct calls *also_bound;

static uint32_t flag;
static int64_t number = 3;
static int64_t pause_ns;
static struct modhost_str text;

__attribute__((unused)) static const struct modhost_param params[] = {
    {.name = "flag", .kind = MODHOST_PARAM_BOOL, .target = &flag, .default_text = "false", .help = "Yes or no."},
    {.name = "number", .kind = MODHOST_PARAM_INT, .flags = MODHOST_PARAM_RANGE, .target = &number, .min = 1, .max = 10},
    {.name = "pause", .kind = MODHOST_PARAM_DURATION, .flags = MODHOST_PARAM_RANGE, .target = &pause_ns, .default_text = "1s", .min = 0,
     .max = 60000000000},
    {.name = "text", .kind = MODHOST_PARAM_STRING, .target = &text, .default_text = "nothing"
#ifdef REQUIRED
    , .flags = MODHOST_PARAM_REQUIRED
#endif
    , .help = "What to say."},
};

/* Answers with the values of its parameters. */
static int32_t serve(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        char answer[256];
        int len = snprintf(answer, sizeof answer, "%u %lld %lld %s", flag, (long long)number, (long long)pause_ns,
                           text.ptr ? text.ptr : "");
        if (udp_reply(batch, i, answer, (size_t)len) < 0)
            return -1;
    }
    return 0;
}

__attribute__((unused)) static const struct modhost_handler handlers[] = {
    {.name = "serve", .kind = MODHOST_HANDLER_UDP, .help = "Answers with the parameters.", .on_datagrams = serve},
};

#ifdef DEPENDS
static const struct modhost_dependency depends[] = {DEPENDS};
#endif

#ifdef INTERFACES
static const struct modhost_interface interfaces[] = {INTERFACES};
#endif
#ifdef BINDS
static const struct modhost_bind binds[] = {BINDS};
#endif

__attribute__((unused)) static int init(void) {
#ifdef INIT_FAILS
    return modhost_error("as asked");
#endif
    modhost_log(MODHOST_INFO, "init_f of %s", NAME);
    return 0;
}

#ifdef CONSTRUCTOR_THREAD
static void *wait_for_ever(void *data) {
    for (;;)
        (void)data;
    return NULL;
}

__attribute__((constructor)) static void start(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
}
#endif

#ifdef CONSTRUCTOR_DIES
__attribute__((constructor)) static void die(void) {
    CONSTRUCTOR_DIES;
}
#endif

#ifdef UNDEFINED
extern int nobody_has_this(void);
int use(void) {
    return nobody_has_this();
}
#endif

/* Fields that a later minor version appends. */
struct table {
    struct module_exports first;
#ifdef MORE
    void *more[MORE];
#endif
};

#ifndef NO_TABLE
extern __attribute__((visibility("default"))) const struct table module_exports_table __asm__("module_exports");
const struct table module_exports_table = {
    .first = {.header = {.magic = MAGIC, .abi_major = MAJOR, .abi_minor = MINOR, .size = SIZE, .flags = FLAGS, .needs_host_minor = NEEDS},
              .host_slot = SLOT,
              .name = NAME,
              .version = VERSION,
              PARAMS,
              HANDLERS,
#ifdef DEPENDS
              MODHOST_DEPENDS(depends),
#endif
#ifdef INTERFACES
              MODHOST_INTERFACES(interfaces),
#endif
#ifdef BINDS
              MODHOST_BINDS(binds),
#endif
              .init_f = INIT},
#ifdef MORE
    .more = {(void *)1},
#endif
};
#endif

#ifndef NO_NOTE
static const struct modhost_note note __attribute__((used, aligned(4), section(MODHOST_NOTE_SECTION))) = {
    8, sizeof(struct modhost_note_descriptor), MODHOST_NOTE_TYPE, "modhost",
    {MAJOR, MINOR, NEEDS, 0, FLAGS & 3, SIZE, "modhost.h 1.0", "by hand"}};
#endif
