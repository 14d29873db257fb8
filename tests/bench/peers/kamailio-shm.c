/* Drives the shared-memory allocators of a Kamailio process in the pattern of host/benches/shm.rs.
 * Kamailio opens the shared object that `loadmodule` names before it checks that it is a module.
 * This one then measures, prints one line of JSON (nanoseconds for one allocation and one free, by
 * number of processes) and ends the program. In its environment, SHM_ALLOCATOR is qm, fm or tlsf,
 * and SHM_ROUNDS a number. It links to nothing and finds the functions in the program. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ALIVE = 1000, PAIRS = 1000000, MOST_PROCESSES = 8 };

typedef void *allocate_fn(void *pool, size_t size, const char *file, const char *function, unsigned line, const char *module);
typedef void free_fn(void *pool, void *block, const char *file, const char *function, unsigned line, const char *module);

static allocate_fn *allocate;
static free_fn *release;
static void *pool;

static void fail(const char *what)
{
	fprintf(stderr, "kamailio-shm: %s\n", what);
	_exit(1);
}

/* A function of the program, named after the allocator. */
static void *of_program(const char *allocator, const char *rest)
{
	char name[64];
	snprintf(name, sizeof name, "%s%s", allocator, rest);
	void *found = dlsym(RTLD_DEFAULT, name);
	if (!found)
		fail(name);
	return found;
}

static double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

/* The same sizes in the same order as host/benches/shm.rs. */
static size_t size_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	size_t bits = *state >> 20;
	unsigned percent = *state % 100;
	if (percent < 70)
		return 16 + bits % 240;
	if (percent < 95)
		return 256 + bits % 1792;
	return 2048 + bits % 14336;
}

static void *block_of(size_t size)
{
	void *block = allocate(pool, size, __FILE__, __func__, __LINE__, "shm");
	if (!block)
		fail("no memory");
	return block;
}

static void give_back(void *block)
{
	release(pool, block, __FILE__, __func__, __LINE__, "shm");
}

static double pairs(void)
{
	static void *blocks[ALIVE];
	uint64_t state = 0x9e3779b97f4a7c15;
	for (int i = 0; i < ALIVE; i++)
		blocks[i] = block_of(size_of(&state));
	double begun = now_ns();
	for (int i = 0; i < PAIRS; i++) {
		size_t size = size_of(&state);
		void **block = &blocks[(state >> 33) % ALIVE];
		give_back(*block);
		*block = block_of(size);
	}
	double spent = now_ns() - begun;
	for (int i = 0; i < ALIVE; i++)
		give_back(blocks[i]);
	begun = now_ns();
	for (int i = 0; i < PAIRS; i++) {
		size_t size = size_of(&state);
		void **block = &blocks[(state >> 33) % ALIVE];
		__asm__ volatile("" : : "r"(size), "r"(block) : "memory");
	}
	return (spent - (now_ns() - begun)) / PAIRS;
}

/* The slowest of several processes that run at once. */
static double at_once(int processes, double *took)
{
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			took[i] = pairs();
			_exit(0);
		}
	}
	double slowest = 0;
	for (int i = 0; i < processes; i++) {
		int status;
		if (wait(&status) < 0 || status != 0)
			fail("a process failed");
	}
	for (int i = 0; i < processes; i++)
		slowest = took[i] > slowest ? took[i] : slowest;
	return slowest;
}

__attribute__((constructor)) static void measure(void)
{
	const char *allocator = getenv("SHM_ALLOCATOR"), *text = getenv("SHM_ROUNDS");
	if (!allocator || !text)
		fail("SHM_ALLOCATOR and SHM_ROUNDS are not set");
	/* Normally runs after the configuration is read, and maps the size given by -m. */
	int (*prepare)(void) = of_program(allocator, "_malloc_init_shm_manager");
	allocate = of_program(allocator, "_shm_malloc");
	release = of_program(allocator, "_shm_free");
	if (prepare() != 0)
		fail("the allocator is not prepared");
	/* The API table (name, pool, block, functions) gives the head of the allocator and confirms its
	 * name. */
	void **table = of_program("", "_shm_root");
	pool = table[2];
	if (table[3] != (void *)allocate)
		fail("the table of functions is another one");
	double *took = mmap(NULL, MOST_PROCESSES * sizeof *took, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (took == MAP_FAILED)
		fail("no memory");
	static const int counts[] = {1, 2, MOST_PROCESSES};
	int rounds = atoi(text);
	printf("{");
	for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
		printf("%s\"%d\": [", i ? ", " : "", counts[i]);
		fflush(stdout);
		for (int round = 0; round < rounds; round++) {
			printf("%s%.1f", round ? ", " : "", at_once(counts[i], took));
			fflush(stdout);
		}
		printf("]");
	}
	printf("}\n");
	fflush(stdout);
	_exit(0);
}
