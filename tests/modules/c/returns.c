/* Returns the values of its parameters. Proves that init_f fails with every value but 0, and
 * init_child_f only with negative ones. */
#include <modhost.h>

static int64_t init_value, child_value;

static const struct modhost_param params[] = {
    {.name = "init", .kind = MODHOST_PARAM_INT, .target = &init_value, .default_text = "0", .help = "What init_f returns."},
    {.name = "child", .kind = MODHOST_PARAM_INT, .target = &child_value, .default_text = "0", .help = "What init_child_f returns."},
};

static int mod_init(void) {
    return (int)init_value;
}

static int mod_child(int rank) {
    (void)rank;
    return (int)child_value;
}

MODULE_EXPORTS(.name = "returns", .version = "1", MODHOST_PARAMS(params), .init_f = mod_init, .init_child_f = mod_child);
