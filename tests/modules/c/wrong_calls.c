/* Calls every function with impossible handles, pointers, sizes and numbers. Proves that a wrong
 * call returns an error code and never crashes. Answers with the first unexpected result. */
#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <modhost.h>

#define EXPECT(expected, call) \
    do { \
        long long got = (long long)(call); \
        if (got != (expected)) \
            return modhost_error("%s gives %lld, not %lld", #call, got, (long long)(expected)); \
    } while (0)

static struct modhost_mutex *shared;

static int32_t nothing(void *data) {
    (void)data;
    return 0;
}

static int32_t no_timer(void *data, uint64_t expirations) {
    (void)data;
    (void)expirations;
    return 0;
}

/* Wrong in every process and phase. A block that was freed may be another process's block a moment
 * later: it is freed twice only while main is `alone`. */
static int always_wrong(int alone) {
    const struct modhost_api *api = modhost_slot.api;
    void *own = modhost_slot.module;
    uint64_t zeros[64] = {0};
    void *handles[] = {NULL, (void *)((char *)zeros + 1), zeros};
    uint8_t buffer[8];
    struct modhost_process_info info = {sizeof info, 0, 0, 0, 0, 0};
    struct modhost_mutex outside = {{0}};

    for (size_t i = 0; i < MODHOST_COUNT(handles); i++) {
        void *wrong = handles[i];
        EXPECT(MODHOST_E_INVALID, api->max_procs(wrong));
        EXPECT(MODHOST_E_INVALID, api->register_procs(wrong, 1));
        EXPECT(MODHOST_E_INVALID, api->fork_process(wrong, 1, "x", 0));
        EXPECT(MODHOST_E_INVALID, api->fork_process_entry(wrong, NULL));
        EXPECT(0, (intptr_t)api->shm_alloc(wrong, 8, 8));
        EXPECT(0, (intptr_t)api->shm_malloc(wrong, 8, 8, 0, NULL));
        EXPECT(0, (intptr_t)api->shm_realloc(wrong, NULL, 8));
        EXPECT(MODHOST_E_INVALID, api->shm_free(wrong, buffer, NULL));
        EXPECT(MODHOST_E_INVALID, api->timer_add(wrong, NULL));
        EXPECT(MODHOST_E_INVALID, api->listen(wrong, NULL));
        EXPECT(MODHOST_E_INVALID, api->listener_find(wrong, 0));
        EXPECT(MODHOST_E_INVALID, api->listener_address(wrong, 0, buffer, sizeof buffer));
        EXPECT(MODHOST_E_INVALID, api->udp_send(wrong, 0, zeros, 16, buffer, 1));
        EXPECT(MODHOST_E_INVALID, api->listener_address_at(wrong, 0, 0, buffer, sizeof buffer));
        EXPECT(MODHOST_E_INVALID, api->udp_send_from(wrong, 0, zeros, 16, zeros, 16, buffer, 1));
        EXPECT(MODHOST_E_INVALID, api->stat_register(wrong, NULL, NULL));
        EXPECT(MODHOST_E_INVALID, api->stat_info(wrong, 0, NULL));
        EXPECT(MODHOST_E_INVALID, api->stat_read(wrong, 0, 0, NULL, 0));
        EXPECT(MODHOST_E_INVALID, api->process_at(wrong, 0, NULL));
        EXPECT(MODHOST_E_INVALID, api->host_info(wrong, NULL));
        api->log(wrong, MODHOST_INFO, NULL, 0, NULL, 0);
        api->log(wrong, 99, (const uint8_t *)"t", 1, (const uint8_t *)"from nobody", 11);
        api->set_error(wrong, NULL, 0);
    }
    api->log(own, 0, NULL, SIZE_MAX, NULL, SIZE_MAX);
    api->log(own, UINT_MAX, NULL, 7, (const uint8_t *)"\xff\xfe broken text", 14);

    EXPECT(MODHOST_E_INVALID, api->random(own, NULL, 8));
    EXPECT(MODHOST_E_INVALID, api->random(own, buffer, SIZE_MAX));
    EXPECT(MODHOST_OK, api->random(own, NULL, 0));
    EXPECT(MODHOST_E_INVALID, api->process_info(own, NULL));
    info.size = sizeof info - 1;
    EXPECT(MODHOST_E_INVALID, api->process_info(own, &info));
    info.size = 0;
    EXPECT(MODHOST_E_INVALID, api->process_info(own, &info));

    EXPECT(MODHOST_E_INVALID, api->mutex_init(own, NULL));
    EXPECT(MODHOST_E_INVALID, api->mutex_init(own, &outside));
    EXPECT(MODHOST_E_INVALID, api->mutex_lock(own, &outside, NULL));
    EXPECT(MODHOST_E_INVALID, api->mutex_trylock(own, &outside, NULL));
    EXPECT(MODHOST_E_INVALID, api->mutex_repaired(own, &outside));
    EXPECT(MODHOST_E_INVALID, api->mutex_unlock(own, &outside));
    EXPECT(MODHOST_E_INVALID, api->mutex_lock(own, (struct modhost_mutex *)((char *)shared + 1), NULL));
    EXPECT(MODHOST_E_INVALID, api->mutex_lock(own, (struct modhost_mutex *)(UINTPTR_MAX - 7), NULL));

    EXPECT(0, (intptr_t)api->shm_malloc(own, 0, 8, 0, NULL));
    EXPECT(0, (intptr_t)api->shm_malloc(own, 8, 3, 0, NULL));
    EXPECT(0, (intptr_t)api->shm_malloc(own, 8, 8192, 0, NULL));
    EXPECT(0, (intptr_t)api->shm_malloc(own, 8, 8, 2, NULL));
    EXPECT(0, (intptr_t)api->shm_malloc(own, SIZE_MAX, 8, 0, NULL));
    EXPECT(0, (intptr_t)api->shm_malloc(own, 8, 8, 0, (void **)((char *)shared + 1)));
    EXPECT(0, (intptr_t)api->shm_realloc(own, buffer, 8));
    EXPECT(0, (intptr_t)api->shm_realloc(own, (char *)shared + 1, 8));
    EXPECT(0, (intptr_t)shm_calloc(SIZE_MAX, 2));
    EXPECT(MODHOST_OK, api->shm_free(own, NULL, NULL));
    EXPECT(MODHOST_E_INVALID, api->shm_free(own, buffer, NULL));
    EXPECT(MODHOST_E_INVALID, api->shm_free(own, (char *)shared + 16, NULL));
    {
        char *block = shm_malloc(100), *moved = shm_realloc(block, 100000);
        EXPECT(1, block && moved);
        if (alone)
            EXPECT(MODHOST_E_INVALID, api->shm_free(own, block, NULL));
        EXPECT(MODHOST_E_INVALID, api->shm_free(own, moved + 4096, NULL));
        EXPECT(MODHOST_OK, api->shm_free(own, moved, NULL));
        if (alone)
            EXPECT(MODHOST_E_INVALID, api->shm_free(own, moved, NULL));
    }

    EXPECT(MODHOST_E_INVALID, api->udp_reply(own, NULL, 0, buffer, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply(own, (struct modhost_udp_batch *)(void *)zeros, 0, buffer, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply_borrowed(own, NULL, 0, buffer, 1));
    EXPECT(0, (intptr_t)api->udp_reply_buffer(own, NULL, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply_commit(own, NULL, 0, 1));
    return 0;
}

static int mod_init(void) {
    const struct modhost_api *api = modhost_slot.api;
    void *own = modhost_slot.module;
    struct modhost_timer_spec timer = {sizeof timer, MODHOST_TIMER_FAST, "t", 0, 0, no_timer, NULL};
    struct modhost_listen_spec listener = {sizeof listener, MODHOST_HANDLER_UDP, "127.0.0.1:0", NULL, 1, 0};
    struct modhost_process_row row = {.size = sizeof row};
    struct modhost_host_info host = {.size = sizeof host};

    shared = shm_calloc(2, sizeof *shared);
    if (!shared || always_wrong(1) < 0)
        return -1;
    /* Zeroed memory is not a lock. */
    EXPECT(MODHOST_E_INVALID, modhost_mutex_lock(shared, NULL));
    EXPECT(MODHOST_E_INVALID, modhost_mutex_unlock(shared));
    EXPECT(MODHOST_OK, modhost_mutex_init(shared));
    EXPECT(MODHOST_E_INVALID, modhost_mutex_unlock(shared));
    EXPECT(MODHOST_E_INVALID, modhost_mutex_repaired(shared));

    EXPECT(MODHOST_E_INVALID, api->register_procs(own, INT_MIN));
    EXPECT(MODHOST_E_LIMIT, api->register_procs(own, INT_MAX));
    EXPECT(0, (intptr_t)api->shm_alloc(own, SIZE_MAX, 8));
    EXPECT(0, (intptr_t)api->shm_alloc(own, 8, SIZE_MAX));
    EXPECT(0, (intptr_t)api->shm_alloc(own, 8, 0));

    EXPECT(MODHOST_E_INVALID, api->timer_add(own, NULL));
    timer.size--;
    EXPECT(MODHOST_E_INVALID, api->timer_add(own, &timer));
    timer.size++, timer.process = 7;
    EXPECT(MODHOST_E_INVALID, api->timer_add(own, &timer));
    timer.process = MODHOST_TIMER_FAST, timer.function = NULL;
    EXPECT(MODHOST_E_INVALID, api->timer_add(own, &timer));
    timer.function = no_timer, timer.name = NULL;
    EXPECT(MODHOST_E_INVALID, api->timer_add(own, &timer));
    /* So late that it never comes. */
    timer.name = "t", timer.first_ns = UINT64_MAX, timer.period_ns = UINT64_MAX;
    EXPECT(MODHOST_OK, api->timer_add(own, &timer));

    EXPECT(MODHOST_E_INVALID, api->listen(own, NULL));
    listener.size = 4;
    EXPECT(MODHOST_E_INVALID, api->listen(own, &listener));
    listener.size = sizeof listener, listener.kind = 9;
    EXPECT(MODHOST_E_INVALID, api->listen(own, &listener));
    listener.kind = MODHOST_HANDLER_UDP, listener.address = NULL;
    EXPECT(MODHOST_E_INVALID, api->listen(own, &listener));
    listener.address = "localhost";
    EXPECT(MODHOST_E_INVALID, api->listen(own, &listener));
    listener.address = "127.0.0.1:0", listener.handler = "nobody";
    EXPECT(MODHOST_E_INVALID, api->listen(own, &listener));
    EXPECT(MODHOST_E_PHASE, api->listener_find(own, 0));
    EXPECT(MODHOST_E_PHASE, api->listener_address(own, 0, &listener, sizeof listener));
    EXPECT(MODHOST_E_PHASE, api->udp_send(own, 0, &listener, 16, (const uint8_t *)"x", 1));
    EXPECT(MODHOST_E_PHASE, api->listener_address_at(own, 0, 0, &listener, sizeof listener));
    EXPECT(MODHOST_E_PHASE, api->udp_send_from(own, 0, &listener, 16, &listener, 16, (const uint8_t *)"x", 1));
    EXPECT(MODHOST_E_PHASE, api->process_at(own, 0, &row));
    EXPECT(MODHOST_E_PHASE, api->host_info(own, &host));
    return register_procs(1);
}

static int mod_child(int rank) {
    const struct modhost_api *api = modhost_slot.api;
    void *own = modhost_slot.module;
    struct modhost_fork_spec spec = {sizeof spec, 0, 1, 0, "x", nothing, NULL};
    struct sockaddr_in peer = {.sin_family = AF_INET};
    unsigned char room[8];
    struct modhost_process_row rows[2] = {{.size = sizeof *rows}, {.size = 7, .name = "untouched"}};
    struct modhost_host_info host = {.size = sizeof host - 1};

    if (always_wrong(rank == PROC_INIT) < 0)
        return -1;
    EXPECT(MODHOST_E_INVALID, api->process_at(own, 0, NULL));
    EXPECT(MODHOST_E_INVALID, api->process_at(own, (uint32_t)get_max_procs(), rows));
    EXPECT(MODHOST_E_INVALID, api->process_at(own, UINT_MAX, rows));
    EXPECT(MODHOST_E_INVALID, api->process_at(own, 0, (struct modhost_process_row *)(void *)&rows->process_no));
    rows->size = sizeof *rows - 1;
    EXPECT(MODHOST_E_INVALID, api->process_at(own, 0, rows));
    rows->size = 0;
    EXPECT(MODHOST_E_INVALID, api->process_at(own, 0, rows));
    /* The struct of a newer header is larger, with the same beginning. */
    rows->size = sizeof rows;
    EXPECT(MODHOST_OK, api->process_at(own, (uint32_t)get_max_procs() - 1, rows));
    EXPECT(sizeof rows, rows->size);
    EXPECT(0, strcmp(rows[1].name, "untouched"));
    EXPECT(MODHOST_E_INVALID, api->host_info(own, NULL));
    EXPECT(MODHOST_E_INVALID, api->host_info(own, &host));
    EXPECT(MODHOST_E_INVALID, api->listener_find(own, UINT_MAX));
    EXPECT(MODHOST_E_INVALID, api->listener_address(own, UINT_MAX, room, sizeof room));
    EXPECT(MODHOST_E_INVALID, api->listener_address(own, 0, room, sizeof room));
    EXPECT(MODHOST_E_INVALID, api->listener_address(own, 0, NULL, 128));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, UINT_MAX, &peer, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, 0, NULL, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, 0, &peer, 0, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, 0, &peer, 3, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, 0, &peer, UINT_MAX, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send(own, 0, &peer, sizeof peer, room, SIZE_MAX));
    EXPECT(MODHOST_E_INVALID, api->listener_address_at(own, 0, 1, room, UINT_MAX));
    EXPECT(MODHOST_E_INVALID, api->listener_address_at(own, 0, UINT_MAX, room, UINT_MAX));
    EXPECT(MODHOST_E_INVALID, api->listener_address_at(own, 0, 0, room, sizeof room));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, UINT_MAX, &peer, sizeof peer, &peer, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, 0, NULL, sizeof peer, &peer, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, 0, &peer, 0, &peer, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, 0, &peer, UINT_MAX, &peer, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, 0, &peer, sizeof peer, NULL, sizeof peer, room, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_send_from(own, 0, &peer, sizeof peer, &peer, sizeof peer, room, SIZE_MAX));
    if (rank != PROC_MAIN)
        return 0;
    EXPECT(MODHOST_E_INVALID, api->fork_process(own, 1, NULL, 0));
    EXPECT(MODHOST_E_INVALID, api->fork_process(own, 1, "", 0));
    EXPECT(MODHOST_E_INVALID, api->fork_process(own, 1, "x", UINT_MAX));
    EXPECT(MODHOST_E_INVALID, api->fork_process_entry(own, NULL));
    spec.size--;
    EXPECT(MODHOST_E_INVALID, api->fork_process_entry(own, &spec));
    spec.size++, spec.entry = NULL;
    EXPECT(MODHOST_E_INVALID, api->fork_process_entry(own, &spec));
    return 0;
}

/* Answers "as expected", or with the first unexpected result. */
static int wrong_answers(struct modhost_udp_batch *batch) {
    const struct modhost_api *api = modhost_slot.api;
    void *own = modhost_slot.module;
    static uint8_t data[65508];

    if (always_wrong(0) < 0)
        return -1;
    EXPECT(MODHOST_E_INVALID, api->udp_reply(own, batch, batch->count, data, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply(own, batch, UINT_MAX, data, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply(own, batch, 0, data, sizeof data));
    EXPECT(MODHOST_E_INVALID, api->udp_reply_borrowed(own, batch, batch->count, data, 1));
    EXPECT(MODHOST_E_INVALID, api->udp_reply_borrowed(own, batch, 0, data, sizeof data));
    EXPECT(0, (intptr_t)api->udp_reply_buffer(own, batch, sizeof data));
    EXPECT(MODHOST_E_INVALID, api->udp_reply_commit(own, batch, 0, 1));
    EXPECT(1, api->udp_reply_buffer(own, batch, 100) != NULL);
    EXPECT(MODHOST_E_INVALID, api->udp_reply_commit(own, batch, batch->count, 100));
    EXPECT(1, api->udp_reply_buffer(own, batch, 100) != NULL);
    EXPECT(MODHOST_E_INVALID, api->udp_reply_commit(own, batch, 0, 101));
    return 0;
}

static int32_t serve(struct modhost_udp_batch *batch) {
    int outcome = wrong_answers(batch);
    for (uint32_t i = 0; i < batch->count; i++)
        udp_reply(batch, i, outcome < 0 ? "surprise" : "as expected", outcome < 0 ? 8 : 11);
    return outcome;
}

static const struct modhost_handler handlers[] = {
    {.name = "serve", .kind = MODHOST_HANDLER_UDP, .help = "Makes wrong calls.", .on_datagrams = serve},
};

MODULE_EXPORTS(.name = "wrong_calls", .version = "1", MODHOST_HANDLERS(handlers), .init_f = mod_init, .init_child_f = mod_child);
