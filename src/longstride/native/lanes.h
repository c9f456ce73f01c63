// Vectors of 8 lanes, one for each sample, whatever the processor's width. A truth is an M of 0 and -1.
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef double D __attribute__((vector_size(64)));
typedef float F __attribute__((vector_size(32)));
typedef int64_t M __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(32)));

static const int LANES = 8;

#define EACH for (int l = 0; l < LANES; l++)
#define ROLLED _Pragma("GCC unroll 1")

static inline M truth(M m) { return m; }
static inline M truth(I m) { return __builtin_convertvector(m, M); }
static inline D choose(M m, D a, D b) { return m ? a : b; }
static inline M choose(M m, M a, M b) { return m ? a : b; }
static inline F choose(M m, F a, F b) { return __builtin_convertvector(m, I) ? a : b; }
static inline I choose(M m, I a, I b) { return __builtin_convertvector(m, I) ? a : b; }
template <class V, class W> static inline V as(W x) { return __builtin_convertvector(x, V); }
template <class V, class S> static inline V all(S x) { return V{} + x; }
static inline bool any(M m) {
    int64_t some = 0;
    EACH some |= m[l];
    return some;
}

// Of so many samples, from and to memory; lanes beyond hold the last of them.
template <class V, int64_t APART, class S> static inline V take(const S *p, int many) {
    V v;
    if (many == LANES) EACH v[l] = p[l * APART];
    else EACH v[l] = p[(l < many ? l : many - 1) * APART];
    return sizeof(S) == 1 ? -v : v;
}
template <int64_t APART, class S, class V> static inline void give(S *p, V v, int many) {
    if (sizeof(S) == 1) v = -v;
    if (many == LANES) EACH p[l * APART] = v[l];
    else for (int l = 0; l < many; l++) p[l * APART] = v[l];
}
template <class V> static inline V kept(const char *here, int k) {
    V v;
    memcpy(&v, here + k * sizeof(D), sizeof v);
    return v;
}
template <class V> static inline void keep(char *here, int k, V v) { memcpy(here + k * sizeof(D), &v, sizeof v); }

// Comparisons with NaN are false, and NaN goes through these, as in torch.
template <class V> static inline V minimum(V a, V b) { return (a < b) | (a != a) ? a : b; }
template <class V> static inline V maximum(V a, V b) { return (a > b) | (a != a) ? a : b; }
template <class V> static inline V clamp_min(V x, V least) { return x < least ? least : x; }
template <class V> static inline V clamp_max(V x, V most) { return x > most ? most : x; }
template <class V> static inline V relu(V x) { return x < 0 ? V{} : x; }
template <class V> static inline V sign(V x) { return as<V>((x < 0) - (x > 0)); }

// Where the C library has vectors of a function, a loop over lanes becomes one call.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define MANY __attribute__((simd("notinbranch")))
extern "C" {
MANY double exp(double) noexcept;
MANY double log(double) noexcept;
MANY double sin(double) noexcept;
MANY double cos(double) noexcept;
MANY double pow(double, double) noexcept;
MANY float expf(float) noexcept;
MANY float logf(float) noexcept;
MANY float sinf(float) noexcept;
MANY float cosf(float) noexcept;
MANY float powf(float, float) noexcept;
}
#endif

#define OF_ONE(name, V, S, function)       \
    static inline V v_##name(V x) {        \
        S a[LANES];                        \
        memcpy(a, &x, sizeof x);           \
        EACH a[l] = function(a[l]);        \
        memcpy(&x, a, sizeof x);           \
        return x;                          \
    }
#define OF_TWO(name, V, S, function)       \
    static inline V v_##name(V x, V y) {   \
        S a[LANES], b[LANES];              \
        memcpy(a, &x, sizeof x);           \
        memcpy(b, &y, sizeof y);           \
        EACH a[l] = function(a[l], b[l]);  \
        memcpy(&x, a, sizeof x);           \
        return x;                          \
    }
#define BOTH(OF, name) OF(name, D, double, name) OF(name, F, float, name##f)

static inline D v_exp(D);
static inline F v_exp(F);
static inline D v_log(D);
static inline F v_log(F);
static inline D v_fabs(D);
static inline F v_fabs(F);
template <class V> static inline V of(double c) { return V{} + (decltype(+V{}[0]))c; }

// What activations are made of, and the C library has no vectors of. A layer has many: they stand once.
#define ONCE __attribute__((noinline)) static

// Near 0, where the second form would cancel, nine terms of Lambert's continued fraction
// x/(1 + x^2/(3 + x^2/(5 + ...))), as a quotient: 1e-20 of it are left out.
template <class V> ONCE V v_tanh(V x) {
    const V s = x * x, size = v_fabs(x), far = 1 - 2 / (v_exp(size + size) + 1);
    const V above = of<V>(34459425) + s * (of<V>(4729725) + s * (of<V>(135135) + s * (of<V>(990) + s)));
    const V below = of<V>(34459425)
        + s * (of<V>(16216200) + s * (of<V>(945945) + s * (of<V>(13860) + s * of<V>(45))));
    return size < of<V>(0.625) ? x * (above / below) : x < 0 ? -far : far;
}

// Kahan's: what rounding took from 1 + x, and from e^x, is given back as a factor.
template <class V> ONCE V v_log1p(V x) {
    const V u = 1 + x, log = v_log(u);
    return u == 1 ? x : u == x ? log : log * (x / (u - 1));
}
template <class V> ONCE V v_expm1(V x) {
    const V u = v_exp(x), less = u - 1;
    return u == 1 ? x : (less == -1) | (less == u) ? less : less * (x / v_log(u));
}

// y = x w, w [K, N] of these strides. A tile of sums stays in registers while x goes by.
template <int T, int K, int64_t DOWN, int64_t ACROSS, class S, class V>
static inline void tile(const S *w, const V *x, V *y) {
    V sums[T] = {};
    ROLLED for (int k = 0; k < K; k++)
        for (int j = 0; j < T; j++) sums[j] += x[k] * w[k * DOWN + j * ACROSS];
    for (int j = 0; j < T; j++) y[j] = sums[j];
}
template <int K, int N, int64_t DOWN, int64_t ACROSS, class S, class V>
static inline void product(const S *w, const V *x, V *y) {
    const int T = 8, rest = N % T;
    ROLLED for (int j = 0; j + T <= N; j += T) tile<T, K, DOWN, ACROSS>(w + j * ACROSS, x, y + j);
    if (rest) tile<rest ? rest : 1, K, DOWN, ACROSS>(w + (N - rest) * ACROSS, x, y + N - rest);
}
