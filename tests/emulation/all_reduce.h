// Runs all_reduce.cu with several ranks inside one launch, one reduction after another with inputs that change, and
// compares every output with a plain sum of whole numbers. Ranks run apart: between two reductions only the blocks of one
// rank wait for each other, as a stream has it, so that a meeting left out lets one rank run into another's memory.
#pragma once
#include <string>

#include "tensor_cores.h"

namespace collective {
#include "../../kernels/cuda/all_reduce.cu"
}

struct Ask {
    u32 ranks, blocks, bytes;
    bool in_place;
};

typedef void (*Reduction)(const collective::Group, u64, u32);

template <class T> f64 element_value(u32 bits) { return Form<T>::value(bits); }
template <> inline f64 element_value<f32>(u32 bits) { return __uint_as_float(bits); }
template <> inline f64 element_value<i32>(u32 bits) { return (i32)bits; }

// Bits of the addends: totals of 16 ranks are exact in the type.
template <class T> const u32 SHIFT = 15;
template <> const u32 SHIFT<Bf16> = 27;
template <> const u32 SHIFT<F16> = 24;
template <> const u32 SHIFT<i32> = 4;

inline u32 key_of(u32 rank, u32 turn) { return 0x1234567u * (rank + 1) + 0x89ABCDu * turn; }

inline i32 plain(u64 index, u32 rank, u32 turn, u32 shift) {
    return collective::addend_of(index, key_of(rank, turn), shift);
}

// Memory of the ranks of one group: aligned to 16, what lies beyond the bytes asked for must stay as it was.
struct Ranks {
    std::vector<std::unique_ptr<Guarded>> inputs, outputs, stages, flags;
    std::vector<u32> status;
    collective::Group group = {};

    Ranks(const Ask& ask, u64 limit_ns) : status(ask.ranks) {
        const size_t whole = (ask.bytes + 15) / 16 * 16;
        group.ranks = ask.ranks, group.blocks = ask.blocks, group.limit_ns = limit_ns;
        group.room = (ask.bytes + 3) / 4;
        for (u32 r = 0; r < ask.ranks; r++) {
            inputs.emplace_back(new Guarded(whole));
            outputs.emplace_back(new Guarded(whole));
            stages.emplace_back(new Guarded(16ul * ask.ranks * group.room));
            flags.emplace_back(new Guarded(128ul * ask.blocks));
            memset(stages[r]->as<char>(), 0, stages[r]->bytes());
            memset(flags[r]->as<char>(), 0, flags[r]->bytes());
            void* output = (ask.in_place ? inputs : outputs)[r]->as<void>();
            group.peer[r] = {inputs[r]->as<void>(), output, stages[r]->as<u64>(), flags[r]->as<u32>(), &status[r]};
        }
    }
};

const u32 TURNS = 3;

template <class T> void reduce_as(const Ask& ask, Reduction kernel) {
    typedef typename collective::Sums<T>::Element Element;
    // Long for a rank that sleeps, short enough for one that never comes.
    Ranks ranks(ask, 200000);
    const u32 count = ask.bytes / sizeof(Element), stride = 256 * ask.blocks;
    std::vector<Meeting> streams(ask.ranks, Meeting{stride});
    const u32 turns[2] = {0xFFFFFFFDu, 1};
    for (u32 from : turns) {
        // Turns wrap; the meetings before them are made up.
        for (std::unique_ptr<Guarded>& flags : ranks.flags) {
            std::fill(flags->as<u32>(), flags->as<u32>() + flags->bytes() / 4, 2 * (from - 1));
        }
        launch(ask.ranks * ask.blocks, 256, ask.ranks * ask.blocks, [&] {
            const u32 rank = blockIdx.x / ask.blocks, first = blockIdx.x % ask.blocks * 256 + threadIdx.x;
            const collective::Peer& own = ranks.group.peer[rank];
            for (u32 turn = from; turn != from + TURNS; turn++) {
                for (u32 i = first; i < count; i += stride) {
                    const i32 value = plain(i, rank, turn, SHIFT<T>);
                    ((Element*)own.input)[i] = (Element)collective::Sums<T>::whole(value);
                }
                meet(streams[rank]);
                kernel(ranks.group, ask.bytes, turn);
                meet(streams[rank]);
                require(ranks.status[rank] == 0, "a rank was waited for in vain");
                for (u32 i = first; i < count; i += stride) {
                    long long total = 0;
                    for (u32 r = 0; r < ask.ranks; r++) {
                        total += plain(i, r, turn, SHIFT<T>);
                    }
                    // i32 wraps.
                    const f64 wanted = sizeof(T) == 4 && std::is_same<T, i32>() ? (f64)(i32)total : (f64)total;
                    require(element_value<T>(((Element*)own.output)[i]) == wanted, "a total is wrong");
                }
                meet(streams[rank]);
            }
        });
    }
    for (auto* memory : {&ranks.inputs, &ranks.outputs}) {
        for (std::unique_ptr<Guarded>& one : *memory) {
            for (size_t at = ask.bytes; at < one->bytes(); at++) {
                require(one->as<char>()[at] == 0x5A, "a kernel wrote beyond the end");
            }
        }
    }
    puts("right");
}

inline bool absent_as(const Ask& ask, Reduction kernel) {
    Ranks ranks(ask, 3000);
    const u32 held = (ask.ranks - 1) * ask.blocks;
    launch(held, 256, held, [&] { kernel(ranks.group, ask.bytes, 1); });
    for (u32 r = 0; r + 1 < ask.ranks; r++) {
        printf("%u\n", ranks.status[r]);
    }
    return true;
}

#define REDUCTIONS(CASE) \
    CASE(f32, f32) \
    CASE(bf16, Bf16) \
    CASE(f16, F16) \
    CASE(i32, i32)

inline bool reduce(const std::string& name, const Ask& ask) {
#define REDUCE(type, T) \
    if (name == "all_reduce_one_" #type) { \
        reduce_as<T>(ask, collective::all_reduce_one_##type); \
        return true; \
    } \
    if (name == "all_reduce_two_" #type) { \
        reduce_as<T>(ask, collective::all_reduce_two_##type); \
        return true; \
    }
    REDUCTIONS(REDUCE)
    return false;
}

inline bool absent(const std::string& name, const Ask& ask) {
#define ABSENT(type, T) \
    if (name == "all_reduce_one_" #type) { \
        return absent_as(ask, collective::all_reduce_one_##type); \
    } \
    if (name == "all_reduce_two_" #type) { \
        return absent_as(ask, collective::all_reduce_two_##type); \
    }
    REDUCTIONS(ABSENT)
    return false;
}

// Right totals, of which rank r's element 3 · r has its lowest bit flipped for each r below `wrong`; what the check finds
// among the ranks from `first` on.
template <class T, class Check> std::vector<u32> check_as(Check kernel, u32 count, u32 wrong, u32 first) {
    typedef typename collective::Sums<T>::Element Element;
    const u32 RANKS = 3, ROOM = 2;
    Ranks ranks({RANKS, 1, (u32)(count * sizeof(Element)), false}, 0);
    ranks.group.first = first;
    std::vector<u32> keys, faults(4 + 4 * ROOM);
    for (u32 r = 0; r < RANKS; r++) {
        keys.push_back(key_of(r, 7));
        Element* output = ranks.outputs[r]->as<Element>();
        for (u32 i = 0; i < count; i++) {
            u32 total = 0;
            for (u32 p = 0; p < RANKS; p++) {
                total += (u32)plain(i, p, 7, SHIFT<T>);
            }
            output[i] = (Element)collective::Sums<T>::whole((i32)total);
        }
        if (r < wrong) {
            output[3 * r] ^= 1;
        }
    }
    launch(2, 256, 1, [&] { kernel(ranks.group, RANKS - first, count, keys.data(), SHIFT<T>, faults.data(), ROOM); });
    return faults;
}

// COUNT TYPE WRONG FIRST
inline std::vector<u32> checked(const std::vector<std::string>& w) {
#define CHECK(type, T) \
    if (w[1] == #type) { \
        return check_as<T>(collective::rank_check_##type, std::stoul(w[0]), std::stoul(w[2]), std::stoul(w[3])); \
    }
    REDUCTIONS(CHECK)
    return {};
}
