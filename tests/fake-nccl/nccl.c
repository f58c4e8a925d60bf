/* A stand-in for libnccl.so.2: the ranks are threads of one process, the memory is the host's, and a stream is a flag
 * that is set once a sum is done. It shows how a group is formed, watched and given up; nothing that is measured with
 * it is a result.
 *
 * What it does wrong is fixed when it is built:
 *   VERSION=n        the version it tells
 *   NEVER_READY      no group is ever formed
 *   FAILS=code       the group fails by itself with this code once it has formed
 *   HANGS            no sum is ever done
 *   COUNT=n          it says that the group has n ranks
 *   ABORT_HANGS      an abort does not return
 *   LACKS_ABORT      there is no ncclCommAbort
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 22703
#endif

enum { SUCCESS = 0, INVALID_ARGUMENT = 4, IN_PROGRESS = 7, RANKS_MAX = 16 };
enum { F16 = 6, F32 = 7, BF16 = 9 };

typedef struct { char bytes[128]; } Id;
typedef struct { size_t size; unsigned magic, version; int blocking; } Config;

typedef struct Group {
    Id id;
    int ranks, joined, arrived;
    const void *from[RANKS_MAX];
    void *to[RANKS_MAX];
    int *flags[RANKS_MAX];
    size_t count;
    int kind, unequal;
    struct Group *next;
} Group;

typedef struct { Group *group; int rank, ranks; } Comm;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Group *groups;
static uint64_t ids;

int ncclGetVersion(int *version) { *version = VERSION; return SUCCESS; }

const char *ncclGetErrorString(int code) { return code == IN_PROGRESS ? "stand-in in progress" : "stand-in error"; }

const char *ncclGetLastError(Comm *comm) { (void)comm; return "said by the stand-in"; }

int ncclGetUniqueId(Id *id) {
    memset(id, 0, sizeof *id);
    pthread_mutex_lock(&lock);
    ids++;
    memcpy(id->bytes, &ids, sizeof ids);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int ncclCommInitRankConfig(Comm **out, int ranks, Id id, int rank, Config *config) {
    if (config->magic != 0xcafebeef || config->blocking != 0 || rank < 0 || rank >= ranks || ranks > RANKS_MAX)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    Group *group = groups;
    while (group && memcmp(&group->id, &id, sizeof id))
        group = group->next;
    if (!group) {
        group = calloc(1, sizeof *group);
        group->id = id;
        group->ranks = ranks;
        group->next = groups;
        groups = group;
    }
    group->joined++;
    Comm *comm = calloc(1, sizeof *comm);
    comm->group = group;
    comm->rank = rank;
    comm->ranks = ranks;
    pthread_mutex_unlock(&lock);
    *out = comm;
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(Comm *comm, int *state) {
    pthread_mutex_lock(&lock);
    int ready = comm->group->joined >= comm->ranks;
    pthread_mutex_unlock(&lock);
#ifdef NEVER_READY
    ready = 0;
#endif
    *state = ready ? SUCCESS : IN_PROGRESS;
#ifdef FAILS
    if (ready) *state = FAILS;
#endif
    return SUCCESS;
}

int ncclCommCount(Comm *comm, int *count) {
    *count = comm->ranks;
#ifdef COUNT
    *count = COUNT;
#endif
    return SUCCESS;
}

int ncclCommUserRank(Comm *comm, int *rank) { *rank = comm->rank; return SUCCESS; }

int ncclCommFinalize(Comm *comm) { (void)comm; return SUCCESS; }

int ncclCommDestroy(Comm *comm) { free(comm); return SUCCESS; }

#ifndef LACKS_ABORT
int ncclCommAbort(Comm *comm) {
#ifdef ABORT_HANGS
    for (;;) sleep(1000);
#endif
    free(comm);
    return SUCCESS;
}
#endif

static float widened(const void *from, size_t at, int kind) {
    if (kind == F32) return ((const float *)from)[at];
    if (kind == F16) return (float)((const _Float16 *)from)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[at] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void narrowed(void *to, size_t at, int kind, float value) {
    if (kind == F32) ((float *)to)[at] = value;
    else if (kind == F16) ((_Float16 *)to)[at] = (_Float16)value;
    else {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        ((uint16_t *)to)[at] = (uint16_t)(bits >> 16);
    }
}

int ncclAllReduce(const void *from, void *to, size_t count, int kind, int op, Comm *comm, int *flag) {
    if (op != 0 || (kind != F32 && kind != F16 && kind != BF16))
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    Group *group = comm->group;
    if (group->arrived && (group->count != count || group->kind != kind))
        group->unequal = 1;
    group->from[comm->rank] = from;
    group->to[comm->rank] = to;
    group->flags[comm->rank] = flag;
    group->count = count;
    group->kind = kind;
    group->arrived++;
    int done = group->arrived == comm->ranks && !group->unequal;
#ifdef HANGS
    done = 0;
#endif
    if (done) {
        for (size_t at = 0; at < count; at++) {
            float sum = 0;
            for (int rank = 0; rank < comm->ranks; rank++)
                sum += widened(group->from[rank], at, kind);
            for (int rank = 0; rank < comm->ranks; rank++)
                narrowed(group->to[rank], at, kind, sum);
        }
        group->arrived = 0;
        for (int rank = 0; rank < comm->ranks; rank++)
            __atomic_store_n(group->flags[rank], 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
