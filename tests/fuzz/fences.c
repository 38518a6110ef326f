/* An allocator for LD_PRELOAD that fences blocks in. What reads or writes beyond the end of one, or after it was
   freed, dies of SIGSEGV; what writes to the rest of its first page, of SIGABRT; what reads there, or what nobody
   has written, gets bytes of FENCES_FILL.

   Aligned blocks, such as torch's tensors, are fenced always; those of malloc while `fences_on` is set. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 16384ul /* The largest that a kernel for such machines has. */
#define ARENA (1ul << 38)

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

volatile int fences_on;
static char *arena;
static size_t used;   /* Only grows, so that nothing takes the place of what was freed. */
static size_t *sizes; /* Of blocks, by the page that they begin in. */
static int fill;

static void *map(size_t size, int protection) {
    return mmap(0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

__attribute__((constructor)) static void start(void) {
    const char *word = getenv("FENCES_FILL");
    if (!word) return;
    fill = atoi(word);
    sizes = map(ARENA / PAGE * sizeof *sizes, PROT_READ | PROT_WRITE);
    char *found = map(ARENA, PROT_NONE);
    if (found != MAP_FAILED && (void *)sizes != MAP_FAILED) arena = found;
}

static int is_fenced(const void *block) {
    return arena && (char *)block >= arena && (char *)block < arena + ARENA;
}

static size_t pages_of(size_t size) { return (size + PAGE - 1) / PAGE + !size; }

static void *fenced(size_t alignment, size_t size) {
    size_t room = pages_of(size) * PAGE;
    size_t at = __atomic_fetch_add(&used, room + PAGE, __ATOMIC_RELAXED);
    char *first = arena + at;
    if (at + room >= ARENA) return __libc_memalign(alignment, size);
    if (mprotect(first, room, PROT_READ | PROT_WRITE)) return 0;
    memset(first, fill, room);
    char *block = first + ((room - size) & ~(alignment - 1));
    if (block == first + room) block -= alignment;
    sizes[at / PAGE] = size;
    return block;
}

static size_t size_of(const char *block) { return sizes[(block - arena) / PAGE]; }

static void release(char *block) {
    char *first = (char *)((uintptr_t)block & ~(PAGE - 1));
    size_t size = size_of(block), room = pages_of(size) * PAGE;
    for (char *beside = first; beside < first + room; beside++) {
        if (beside == block) beside += size;
        if (beside < first + room && *beside != (char)fill) abort();
    }
    /* Another mapping, not another protection: it no longer counts for RLIMIT_DATA. */
    mmap(first, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void *aligned(size_t alignment, size_t size) {
    int fits = arena && alignment <= PAGE && size < ARENA / 8;
    return fits ? fenced(alignment, size) : __libc_memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size) {
    *block = aligned(alignment, size);
    return *block ? 0 : ENOMEM;
}

void *memalign(size_t alignment, size_t size) { return aligned(alignment, size); }

void *aligned_alloc(size_t alignment, size_t size) { return aligned(alignment, size); }

void *malloc(size_t size) { return fences_on && arena ? aligned(16, size) : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
    size_t total;
    if (!fences_on || !arena) return __libc_calloc(count, size);
    if (__builtin_mul_overflow(count, size, &total)) return 0;
    void *block = aligned(16, total);
    return block ? memset(block, 0, total) : 0;
}

void free(void *block) {
    if (is_fenced(block)) release(block);
    else __libc_free(block);
}

void *realloc(void *block, size_t size) {
    if (block && !is_fenced(block)) return __libc_realloc(block, size);
    void *larger = malloc(size);
    if (block && larger) {
        size_t old = size_of(block);
        memcpy(larger, block, old < size ? old : size);
        free(block);
    }
    return larger;
}
