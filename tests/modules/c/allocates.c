/* Allocates, changes and frees on command: in a worker, in its threads, and in processes that it
 * forks without the host. Proves that any process and thread can use shared memory. Each command
 * leaves a block, and the next command frees it, in whatever process or thread. Answers with the
 * first unexpected result. */
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <modhost.h>

enum { ALIVE = 50, THREADS = 3 };

/* In shared memory: the block that the last command left. */
static unsigned char **left;

static int init(void) {
    left = shm_calloc(1, sizeof *left);
    return left == NULL ? modhost_error("no memory") : 0;
}

static int child(int rank) {
    (void)rank;
    return 0;
}

static int is_whole(const unsigned char *block, size_t size, unsigned char mark) {
    for (size_t i = 0; i < size; i++) {
        if (block[i] != mark) {
            return 0;
        }
    }
    return 1;
}

/* Replaces the block that is left. Its content must be as the last command wrote it. */
static int hand_over(unsigned char mark) {
    unsigned char *block = shm_malloc(300);
    if (block == NULL) {
        return -10;
    }
    memset(block, mark, 300);
    unsigned char *old = __atomic_exchange_n(left, block, __ATOMIC_ACQ_REL);
    int whole = old == NULL || is_whole(old, 300, old[0]);
    shm_free(old);
    return whole ? 0 : -11;
}

/* `rounds` blocks of many sizes. Returns 0 or an error text. */
static int churn(unsigned rounds, unsigned char mark) {
    unsigned char *blocks[ALIVE] = {NULL};
    size_t sizes[ALIVE] = {0};
    int wrong = 0;
    for (unsigned i = 0; i < rounds && wrong == 0; i++) {
        unsigned at = i * 7 % ALIVE;
        size_t size = 1 + i * 131 % (i % 10 == 0 ? 20000 : 700);
        if (blocks[at] != NULL && !is_whole(blocks[at], sizes[at], mark)) {
            wrong = -1;
        }
        if (i % 3 == 0) {
            unsigned char *moved = blocks[at] == NULL ? shm_malloc(size) : shm_realloc(blocks[at], size);
            if (moved != NULL && blocks[at] != NULL && !is_whole(moved, size < sizes[at] ? size : sizes[at], mark)) {
                wrong = -2;
            }
            blocks[at] = moved;
        } else {
            shm_free(blocks[at]);
            blocks[at] = shm_malloc(size);
        }
        if (blocks[at] == NULL) {
            wrong = -3;
        } else {
            memset(blocks[at], mark, sizes[at] = size);
        }
    }
    for (unsigned at = 0; at < ALIVE; at++) {
        shm_free(blocks[at]);
    }
    return wrong != 0 ? wrong : hand_over(mark);
}

struct work {
    unsigned rounds;
    unsigned char mark;
    int outcome;
};

static void *churn_in_thread(void *work) {
    struct work *own = work;
    own->outcome = churn(own->rounds, own->mark);
    return NULL;
}

/* Several threads at once, besides this one. */
static int threads(unsigned rounds) {
    pthread_t others[THREADS];
    struct work works[THREADS];
    int wrong = 0;
    for (int i = 0; i < THREADS; i++) {
        works[i] = (struct work){rounds, (unsigned char)(i + 1), 0};
        if (pthread_create(&others[i], NULL, churn_in_thread, &works[i]) != 0) {
            return -20;
        }
    }
    int own = churn(rounds, 200);
    for (int i = 0; i < THREADS; i++) {
        if (pthread_join(others[i], NULL) != 0) {
            return -21;
        }
        wrong = works[i].outcome != 0 ? works[i].outcome : wrong;
    }
    return own != 0 ? own : wrong;
}

/* Several processes that the host did not fork, besides this one. */
static int outside(unsigned rounds) {
    pid_t pids[THREADS];
    int wrong = 0;
    for (int i = 0; i < THREADS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            _exit(-churn(rounds, (unsigned char)(i + 1)));
        }
    }
    int own = churn(rounds, 200);
    for (int i = 0; i < THREADS; i++) {
        int status = 0;
        if (pids[i] < 0 || waitpid(pids[i], &status, 0) != pids[i]) {
            return -30;
        }
        wrong = status != 0 ? -status : wrong;
    }
    return own != 0 ? own : wrong;
}

/* Frees the block that is left. */
static int empty(void) {
    shm_free(__atomic_exchange_n(left, NULL, __ATOMIC_ACQ_REL));
    return 0;
}

static int obey(const char *order, unsigned rounds) {
    if (strcmp(order, "here") == 0) {
        return churn(rounds, 100);
    }
    if (strcmp(order, "threads") == 0) {
        return threads(rounds);
    }
    if (strcmp(order, "outside") == 0) {
        return outside(rounds);
    }
    return strcmp(order, "empty") == 0 ? empty() : -40;
}

static int32_t serve(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct modhost_datagram *datagram = modhost_datagram_at(batch, i);
        char text[64] = {0}, order[64] = {0}, answer[32];
        unsigned rounds = 0;
        memcpy(text, datagram->data, datagram->len < sizeof text ? datagram->len : sizeof text - 1);
        if (sscanf(text, "%63s %u", order, &rounds) >= 1) {
            int length = snprintf(answer, sizeof answer, "%d", obey(order, rounds));
            if (udp_reply(batch, i, answer, (size_t)length) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static const struct modhost_handler handlers[] = {{.name = "serve", .kind = MODHOST_HANDLER_UDP, .on_datagrams = serve}};

MODULE_EXPORTS(.name = "allocates", .version = "1", .init_f = init, .init_child_f = child, MODHOST_HANDLERS(handlers));
