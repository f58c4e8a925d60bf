// Runs the kernels' own sources on fibers and compares them with plain loops over whole numbers.
//
//     proof matmul KERNEL M N K SEED   operands by fill_*, C by KERNEL, every element against Σ a·b; prints “right” or aborts
//     proof reduce ENTRY RANKS BLOCKS BYTES in|out SEED   a few all-reduces in turn, inputs anew each time; prints “right” or aborts
//     proof absent ENTRY RANKS BLOCKS BYTES   the same without the last rank; prints what each other rank waited for
//     proof bits ENTRY ARGUMENTS…      runs a step kernel; arrays come in on stdin and go out on stdout as raw bytes
//
// An emulation: it shows that indices, edges, layouts and phases are right, and nothing about a device's own arithmetic.
#include <algorithm>
#include <string>

#include "warp_groups.h"

namespace step {
#include "../../kernels/cuda/step.cu"
}
namespace portable {
#include "../../kernels/cuda/matmul.cu"
}
namespace portable_fp8 {
#define FP8
#include "../../kernels/cuda/matmul.cu"
}
namespace nine {
#include "../../kernels/cuda/hopper.cu"
}
#include "all_reduce.h"

typedef std::vector<std::string> Words;

u32 number(const std::string& word) { return (u32)std::stoul(word); }

u32 up(u32 length, u32 tile) { return (length + tile - 1) / tile; }

template <class Element> using Fill = void (*)(Element*, u64, u32, u32);
const u32 KEY_A = 0x12345678, KEY_B = 0x9ABCDEF1;

template <class Type> struct Filled;
template <> struct Filled<Bf16> {
    typedef u16 Word;
    static constexpr Fill<u16> BY = step::fill_bf16;
};
template <> struct Filled<F16> {
    typedef u16 Word;
    static constexpr Fill<u16> BY = step::fill_f16;
};
template <> struct Filled<Tf32> {
    typedef f32 Word;
    static constexpr Fill<f32> BY = step::fill_f32;
};
template <> struct Filled<I8> {
    typedef u8 Word;
    static constexpr Fill<u8> BY = step::fill_i8;
};
template <> struct Filled<E4m3> {
    typedef u8 Word;
    static constexpr Fill<u8> BY = step::fill_e4m3;
};
template <> struct Filled<E5m2> {
    typedef u8 Word;
    static constexpr Fill<u8> BY = step::fill_e5m2;
};
template <> struct Filled<f64> {
    typedef f64 Word;
    static constexpr Fill<f64> BY = step::fill_f64;
};

struct Shape {
    u32 m, n, k, range;
    bool turned;
};

// Every element of C against the sum of products of whole numbers.
template <class Sum> void compare(const Sum* c, const Shape& s) {
    std::vector<i32> a((u64)s.m * s.k), b((u64)s.k * s.n);
    for (u32 i = 0; i < a.size(); i++) {
        a[i] = operand(i, KEY_A, s.range);
    }
    for (u32 l = 0; l < s.k; l++) {
        for (u32 j = 0; j < s.n; j++) {
            b[(u64)l * s.n + j] = operand(s.turned ? j * s.k + l : l * s.n + j, KEY_B, s.range);
        }
    }
    std::vector<long long> row(s.n);
    for (u32 i = 0; i < s.m; i++) {
        std::fill(row.begin(), row.end(), 0);
        for (u32 l = 0; l < s.k; l++) {
            for (u32 j = 0; j < s.n; j++) {
                row[j] += (long long)a[(u64)i * s.k + l] * b[(u64)l * s.n + j];
            }
        }
        for (u32 j = 0; j < s.n; j++) {
            if (c[(u64)i * s.n + j] != (Sum)row[j]) {
                fprintf(stderr, "row %u column %u: %g, not %lld\n", i, j, (double)c[(u64)i * s.n + j], row[j]);
                exit(1);
            }
        }
    }
    puts("right");
}

template <class Type, class Sum, class Run> void prove(const Shape& s, Run run) {
    typedef typename Filled<Type>::Word Word;
    Guarded a((u64)s.m * s.k * sizeof(Word)), b((u64)s.k * s.n * sizeof(Word)), c((u64)s.m * s.n * sizeof(Sum));
    launch(3, 256, 1, [&] { Filled<Type>::BY(a.as<Word>(), (u64)s.m * s.k, KEY_A, s.range); });
    launch(3, 256, 1, [&] { Filled<Type>::BY(b.as<Word>(), (u64)s.k * s.n, KEY_B, s.range); });
    run(a, b, c);
    compare(c.as<Sum>(), s);
}

typedef void (*Portable)(const void*, const void*, void*, u32, u32, u32);

template <class Type, class Sum> void prove_portable(const Shape& s, Portable kernel, u32 threads) {
    prove<Type, Sum>(s, [&](Guarded& a, Guarded& b, Guarded& c) {
        launch(up(s.m, 128) * up(s.n, 128), threads, 1,
               [&] { kernel(a.as<void>(), b.as<void>(), c.as<void>(), s.m, s.n, s.k); });
    });
}

template <class Type, class Number> void prove_plain(const Shape& s, void (*kernel)(const Number*, const Number*, Number*, u32, u32, u32), u32 tile) {
    prove<Type, Number>(s, [&](Guarded& a, Guarded& b, Guarded& c) {
        launch(up(s.m, tile) * up(s.n, tile), 256, 1,
               [&] { kernel(a.as<Number>(), b.as<Number>(), c.as<Number>(), s.m, s.n, s.k); });
    });
}

// Tensor maps as the contract in hopper.cu has them; fewer blocks than tiles, so that blocks stay for several.
template <class Type> void prove_nine(const Shape& s, void (*kernel)(const TensorMap, const TensorMap, f32*, u32, u32, u32), bool pair) {
    prove<Type, f32>(s, [&](Guarded& a, Guarded& b, Guarded& c) {
        const u32 bytes = Form<Type>::BYTES, line = 128 / bytes;
        const TensorMap map_a = encode(a.as<void>(), bytes, s.k, s.m, line, 128);
        const TensorMap map_b = bytes == 2 ? encode(b.as<void>(), bytes, s.n, s.k, 64, 64)
                                           : encode(b.as<void>(), bytes, s.k, s.n, 128, 128);
        const u32 cluster = pair ? 2 : 1;
        const u32 grid = cluster * std::min(2u, up(s.m, 128 * cluster) * up(s.n, 256));
        machine.between = land_some;
        launch(grid, 384, cluster, [&] { kernel(map_a, map_b, c.as<f32>(), s.m, s.n, s.k); });
        machine.between = nullptr;
        require(coming.empty(), "copies are under way after the kernel has ended");
    });
}

bool matmul(const std::string& name, Shape s) {
#define PORTABLE(kernel, space, Type, Sum, R, turn, threads) \
    if (name == #kernel) { \
        s.range = R, s.turned = turn; \
        prove_portable<Type, Sum>(s, space::kernel, threads); \
        return true; \
    }
#define PORTABLE_BOTH(kernel, space, Type, Sum, R, turn, threads) \
    PORTABLE(kernel, space, Type, Sum, R, turn, threads) PORTABLE(kernel##_any, space, Type, Sum, R, turn, threads)
#define NINE(kernel, Type, R, turn, pair) \
    if (name == #kernel) { \
        s.range = R, s.turned = turn; \
        prove_nine<Type>(s, nine::kernel, pair); \
        return true; \
    }
    PORTABLE_BOTH(matmul_bf16, portable, Bf16, f32, 9, false, 128)
    PORTABLE_BOTH(matmul_f16, portable, F16, f32, 9, false, 128)
    PORTABLE_BOTH(matmul_tf32, portable, Tf32, f32, 9, false, 128)
    PORTABLE_BOTH(matmul_i8, portable, I8, i32, 9, true, 128)
    PORTABLE_BOTH(matmul_e4m3, portable_fp8, E4m3, f32, 8, true, 256)
    PORTABLE_BOTH(matmul_e5m2, portable_fp8, E5m2, f32, 8, true, 256)
    NINE(hopper_bf16, Bf16, 9, false, false)
    NINE(hopper_bf16_pair, Bf16, 9, false, true)
    NINE(hopper_f16, F16, 9, false, false)
    NINE(hopper_f16_pair, F16, 9, false, true)
    NINE(hopper_e4m3, E4m3, 8, true, false)
    NINE(hopper_e4m3_pair, E4m3, 8, true, true)
    NINE(hopper_e5m2, E5m2, 8, true, false)
    NINE(hopper_e5m2_pair, E5m2, 8, true, true)
    s.range = 9, s.turned = false;
    if (name == "matmul_f32") {
        prove_plain<Tf32, f32>(s, portable::matmul_f32, 128);
        return true;
    }
    if (name == "matmul_f64") {
        prove_plain<f64, f64>(s, portable::matmul_f64, 64);
        return true;
    }
    return false;
}

std::vector<char> input() {
    std::vector<char> bytes;
    char page[4096];
    for (size_t got; (got = fread(page, 1, sizeof(page), stdin)) > 0;) {
        bytes.insert(bytes.end(), page, page + got);
    }
    return bytes;
}

template <class T> int output(const std::vector<T>& values) {
    return fwrite(values.data(), sizeof(T), values.size(), stdout) == values.size() ? 0 : 1;
}

template <class T> int filled(void (*fill)(T*, u64, u32, u32), const Words& w, u64 length) {
    std::vector<T> out(length);
    launch(3, 256, 1, [&] { fill(out.data(), number(w[0]), number(w[1]), number(w[2])); });
    return output(out);
}

template <class T> int audited(void (*audit)(const T*, u32*, u32, u32, u32, u32), const Words& w) {
    const u32 m = number(w[0]), n = number(w[1]), first = 3;
    const std::vector<char> bytes = input();
    require(bytes.size() == sizeof(T) * m * n, "C has another size");
    std::vector<u32> rows(first + m);
    launch(up(m, 8) * up(n, 2048), 256, 1, [&] { audit((const T*)bytes.data(), rows.data(), m, n, number(w[2]), first); });
    rows.erase(rows.begin(), rows.begin() + first);
    return output(rows);
}

// Row sums that the generator alone gives.
int expected(const Words& w) {
    const u32 m = number(w[0]), n = number(w[1]), k = number(w[2]), range = number(w[6]), turned = number(w[7]);
    std::vector<u32> weights(k), rows(m);
    launch(5, 256, 1, [&] { step::weigh_b(weights.data(), n, k, number(w[4]), number(w[5]), range, turned); });
    launch(5, 256, 1, [&] { step::weigh_a(rows.data(), weights.data(), m, k, number(w[3]), range); });
    return output(rows);
}

int one_row(const Words& w) {
    const u32 n = number(w[1]);
    std::vector<i32> row(n);
    launch(2, 256, 1, [&] {
        step::expect_row(row.data(), number(w[0]), n, number(w[2]), number(w[3]), number(w[4]), number(w[5]), number(w[6]));
    });
    return output(row);
}

int pattern(const Words& w) {
    const u64 count = number(w[0]), wrong = number(w[4]);
    const u32 key = number(w[1]), mask = number(w[2]), flip = number(w[3]), room = 2;
    std::vector<uint4> memory(count);
    std::vector<u32> faults(4 + 4 * room);
    launch(3, 256, 1, [&] { step::pattern_write(memory.data(), count, key, mask, flip); });
    for (u64 i = 0; i < wrong; i++) {
        launch(1, 1, 1, [&] { step::flip((u32*)memory.data(), 5 + 4 * i, 7); });
    }
    launch(3, 256, 1, [&] { step::pattern_check(memory.data(), count, key, mask, flip, faults.data(), room); });
    return output(faults);
}

int streams(const Words& w) {
    const std::vector<char> bytes = input();
    const u64 count = bytes.size() / 16;
    std::vector<float4> x(count), y(count), z(count);
    memcpy(x.data(), bytes.data(), count * 16);
    launch(3, 256, 1, [&] { step::copy((const uint4*)x.data(), (uint4*)y.data(), count); });
    launch(3, 256, 1, [&] { step::triad(x.data(), y.data(), z.data(), std::stof(w[0]), count); });
    return output(z);
}

int bits(const std::string& name, const Words& w) {
    const u64 count = w.empty() || name == "streams" ? 0 : number(w[0]);
#define FILLED(type) \
    if (name == "fill_" #type) { \
        return filled(step::fill_##type, w, count); \
    }
    FILLED(f64) FILLED(f32) FILLED(f16) FILLED(bf16) FILLED(e4m3) FILLED(e5m2) FILLED(i8)
    if (name == "fill_e2m1") {
        return filled(step::fill_e2m1, w, (count + 1) / 2);
    }
#define NOISE_OF(type, Word) \
    if (name == "noise_" #type) { \
        std::vector<Word> out(count); \
        launch(3, 256, 1, [&] { step::noise_##type(out.data(), count, number(w[1])); }); \
        return output(out); \
    }
    NOISE_OF(f32, u32) NOISE_OF(bf16, u16) NOISE_OF(f16, u16) NOISE_OF(e4m3, u8) NOISE_OF(e5m2, u8)
    if (name == "audit_f32") {
        return audited(step::audit_f32, w);
    }
    if (name == "audit_i32") {
        return audited(step::audit_i32, w);
    }
    if (name == "audit_f64") {
        return audited(step::audit_f64, w);
    }
    if (name == "expected") {
        return expected(w);
    }
    if (name == "expect_row") {
        return one_row(w);
    }
    if (name == "pattern") {
        return pattern(w);
    }
    if (name == "streams") {
        return streams(w);
    }
    if (name == "addend") {
        std::vector<f32> out(count);
        launch(3, 256, 1, [&] { step::addend(out.data(), count, number(w[1])); });
        return output(out);
    }
#define RANK_FILL(type, Word) \
    if (name == "rank_fill_" #type) { \
        std::vector<Word> out(count); \
        launch(3, 256, 1, [&] { collective::rank_fill_##type(out.data(), count, number(w[1]), number(w[2])); }); \
        return output(out); \
    }
    RANK_FILL(f32, u32) RANK_FILL(bf16, u16) RANK_FILL(f16, u16) RANK_FILL(i32, u32)
    if (name == "rank_check") {
        return output(checked(w));
    }
    if (name == "digest") {
        const std::vector<char> bytes = input();
        std::vector<u64> out(2);
        launch(3, 256, 1, [&] { step::digest((const u32*)bytes.data(), bytes.size() / 4, count, out.data()); });
        return output(out);
    }
    return 2;
}

int main(int count, char** given) {
    const Words words(given + 1, given + count);
    if (words.size() == 6 && words[0] == "matmul") {
        machine.chance.seed(number(words[5]));
        return matmul(words[1], {number(words[2]), number(words[3]), number(words[4]), 0, false}) ? 0 : 2;
    }
    if (words.size() == 7 && words[0] == "reduce") {
        machine.chance.seed(number(words[6]));
        return reduce(words[1], {number(words[2]), number(words[3]), number(words[4]), words[5] == "in"}) ? 0 : 2;
    }
    if (words.size() == 5 && words[0] == "absent") {
        return absent(words[1], {number(words[2]), number(words[3]), number(words[4]), false}) ? 0 : 2;
    }
    if (words.size() >= 2 && words[0] == "bits") {
        return bits(words[1], Words(words.begin() + 2, words.end()));
    }
    return 2;
}
