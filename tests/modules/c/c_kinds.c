/* Answers each datagram with its parameters, one of each kind. The same as the Rust fixture
 * kinds. */
#include <inttypes.h>
#include <modhost.h>

enum { FIRST, ANY, LAST };
static const char *const words[] = {"first", "any", "last"};
#define WORDS "first|any|last"

static int64_t longest;
static uint32_t choice;
static struct modhost_str file, other;
static struct modhost_list names, ports, choices, files;
static struct modhost_table waits, routes;

static const struct modhost_param params[] = {
    {.name = "longest", .kind = MODHOST_PARAM_SIZE, .flags = MODHOST_PARAM_RANGE, .target = &longest, .default_text = "8KiB",
     .min = 1024, .max = 65536, .help = "Longest answer."},
    {.name = "file", .kind = MODHOST_PARAM_PATH, .target = &file, .default_text = "default.db", .help = "A file."},
    {.name = "choice", .kind = MODHOST_PARAM_ENUM, .target = &choice, .default_text = "any", .words = WORDS, .help = "Which peer is next."},
    {.name = "names", .kind = MODHOST_PARAM_LIST, .of = MODHOST_PARAM_STRING, .target = &names, .default_text = "", .help = "Who may ask."},
    {.name = "ports", .kind = MODHOST_PARAM_LIST, .of = MODHOST_PARAM_INT, .flags = MODHOST_PARAM_RANGE, .target = &ports,
     .default_text = "5060, 5061", .min = 1, .max = 65535, .help = "Where to ask."},
    {.name = "choices", .kind = MODHOST_PARAM_LIST, .of = MODHOST_PARAM_ENUM, .target = &choices, .default_text = "last", .words = WORDS,
     .help = "In which order."},
    {.name = "files", .kind = MODHOST_PARAM_LIST, .of = MODHOST_PARAM_PATH, .target = &files, .default_text = "", .help = "Files."},
    {.name = "waits", .kind = MODHOST_PARAM_TABLE, .of = MODHOST_PARAM_DURATION, .flags = MODHOST_PARAM_RANGE, .target = &waits,
     .default_text = "\"any one\" = 1s", .min = 1000000, .max = 3600000000000, .help = "How long each may take."},
    {.name = "routes", .kind = MODHOST_PARAM_TABLE, .of = MODHOST_PARAM_STRING, .target = &routes, .default_text = "",
     .help = "Who goes where."},
    {.name = "other", .kind = MODHOST_PARAM_PATH, .target = &other, .help = "Another file."},
};

static char answer[4096];
static size_t length;

#define SAY(...) (length += modhost_formatted(snprintf(answer + length, sizeof(answer) - length, __VA_ARGS__), sizeof(answer) - length))

static void say_texts(struct modhost_list list) {
    const struct modhost_str *items = list.items;
    for (size_t i = 0; i < list.len; i++)
        SAY("%s%s", i ? "|" : "", items[i].ptr);
}

static int mod_init(void) {
    SAY("%" PRId64 " %s %s [", longest, file.ptr, words[choice]);
    say_texts(names);
    SAY("] [");
    for (size_t i = 0; i < ports.len; i++)
        SAY("%s%" PRId64, i ? "|" : "", ((const int64_t *)ports.items)[i]);
    SAY("] [");
    for (size_t i = 0; i < choices.len; i++)
        SAY("%s%s", i ? "|" : "", words[((const uint32_t *)choices.items)[i]]);
    SAY("] [");
    say_texts(files);
    SAY("] [");
    for (size_t i = 0; i < waits.len; i++)
        SAY("%s%s>%" PRId64, i ? "|" : "", waits.keys[i].ptr, ((const int64_t *)waits.values)[i]);
    SAY("] [");
    for (size_t i = 0; i < routes.len; i++)
        SAY("%s%s>%s", i ? "|" : "", routes.keys[i].ptr, ((const struct modhost_str *)routes.values)[i].ptr);
    SAY("] %s", other.ptr ? other.ptr : "-");
    return choice <= LAST ? 0 : modhost_error("no such word");
}

static int32_t tell(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++)
        if (udp_reply_borrowed(batch, i, answer, length) < 0)
            return -1;
    return 0;
}

static const struct modhost_handler handlers[] = {{.name = "tell", .kind = MODHOST_HANDLER_UDP, .on_datagrams = tell}};

MODULE_EXPORTS(.name = "c_kinds", .version = "1", MODHOST_PARAMS(params), MODHOST_HANDLERS(handlers), .init_f = mod_init);
