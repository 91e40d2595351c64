// One token of a session, for any register type with a gather. A token has no neighbors to share a weight with: lanes are
// weights in the order in which they are stored, and the inputs of the cells are gathered beside them. Memory limits it at best,
// so weights are read in the order in which they lie: stretch by stretch over all bands, while the sums wait in y.
#pragma once

#include <cfloat>
#include <cstring>

#include "../math.h"
#include "../ahead.h"

namespace lavolta {
namespace {

// Hardware follows a stretch, but not into the next page: the columns of a run are fetched a while before.
inline void fetch_columns(const uint16_t* columns, size_t cells) {
    for (size_t cell = 0; cell < cells; cell += 32) __builtin_prefetch(columns + kTokenAheadBytes / 2 / sizeof(uint16_t) + cell);
}

// body(band, first unit, units) for every band of the call that a stretch has something of, stretch by stretch.
template <class Args, class Body>
inline void for_runs(const Args& a, const Body& body) {
    for (size_t s = 0; s < a.stretch_count; ++s) {
        const uint16_t* const sizes = a.stretches[s].sizes;
        size_t unit = a.stretches[s].first;
        for (uint32_t band = 0; band < a.band_begin; ++band) unit += sizes[band];
        for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
            const size_t units = sizes[band];
            if (units == 0) continue;
            body(band, unit, units);
            unit += units;
        }
    }
}

// y of the bands of a call: what `sums` left there without activation and residual.
template <class V, class Args>
inline void finish_rows(const Args& a) {
    const size_t begin = size_t{a.band_begin} * a.cell_rows;
    size_t end = size_t{a.band_end} * a.cell_rows;
    if (end > a.out_features) end = a.out_features;
    if (a.activation != Activation::none) {
        size_t row = begin;
        for (; row + V::width <= end; row += V::width) V::store(a.y + row, activate<V>(V::load(a.y + row), a.activation));
        if (row < end) V::store_first(a.y + row, activate<V>(V::load_first(a.y + row, end - row), a.activation), end - row);
    }
    if (!a.residual) return;
    for (size_t row = begin; row < end; ++row) a.y[row] += a.residual[row];
}

// sums[r] = sum of a run of cells of R rows below a register: a step is as many cells as a register has lanes, in R registers.
template <class V, int R>
inline void run_sums(const float* x, const float* values, const uint16_t* columns, size_t cells, float (&sums)[R]) {
    constexpr size_t step = V::width;
    float lanes[V::width] = {};
    // Runs have all lengths, and a processor guesses neither their last step nor their rest: the rest is a whole step that ends where
    // the run does, in which the cells that were added already meet inputs of 0.
    if (cells >= step) {
        typename V::Reg acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
        typename V::Index spread[R];
#pragma GCC unroll 16
        for (int j = 0; j < R; ++j) spread[j] = V::template spread<R>(j);
        for (; cells >= step; cells -= step, columns += step, values += step * R) {
            fetch_ahead<step * R * sizeof(float)>(values);
            if constexpr (V::template broadcasts<R>) {
#pragma GCC unroll 16
                for (int j = 0; j < R; ++j) acc[j % 4] = V::fma(V::load(values + j * step), V::broadcast(x, columns, j), acc[j % 4]);
            } else {
                const auto inputs = V::gather(x, columns);
#pragma GCC unroll 16
                for (int j = 0; j < R; ++j) acc[j % 4] = V::fma(V::load(values + j * step), V::permute(inputs, spread[j]), acc[j % 4]);
            }
        }
        columns -= step - cells;
        values -= (step - cells) * R;
        const auto inputs = V::keep_last(V::gather(x, columns), cells);
#pragma GCC unroll 16
        for (int j = 0; j < R; ++j) acc[j % 4] = V::fma(V::load(values + j * step), V::permute(inputs, spread[j]), acc[j % 4]);
        cells = 0;
        V::store(lanes, V::add(V::add(acc[0], acc[1]), V::add(acc[2], acc[3])));
    }
    for (int r = 0; r < R; ++r) sums[r] = lanes[r];
    for (size_t lane = R; lane < V::width; ++lane) sums[lane % R] += lanes[lane];
    for (; cells > 0; --cells, ++columns, values += R) {
        const float input = x[*columns];
        for (int r = 0; r < R; ++r) sums[r] += values[r] * input;
    }
}

// The same for cells that fill registers.
template <class V, int R>
inline void tall_sums(const float* x, const float* values, const uint16_t* columns, size_t cells, float (&sums)[R]) {
    constexpr int T = R / static_cast<int>(V::width);
    // Eight sums hide the latency of a multiply-add.
    constexpr int partial = T >= 4 ? 2 : 4;
    typename V::Reg acc[partial][T];
    for (int i = 0; i < partial; ++i) {
        for (int t = 0; t < T; ++t) acc[i][t] = V::zero();
    }
    size_t cell = 0;
    for (; cell + partial <= cells; cell += partial) {
        fetch_ahead<partial * R * sizeof(float)>(values + cell * R);
#pragma GCC unroll 4
        for (int i = 0; i < partial; ++i) {
            const auto input = V::set1(x[columns[cell + i]]);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) acc[i][t] = V::fma(V::load(values + (cell + i) * R + t * V::width), input, acc[i][t]);
        }
    }
    for (; cell < cells; ++cell) {
        const auto input = V::set1(x[columns[cell]]);
        for (int t = 0; t < T; ++t) acc[0][t] = V::fma(V::load(values + cell * R + t * V::width), input, acc[0][t]);
    }
    for (int t = 0; t < T; ++t) {
        auto sum = V::add(acc[0][t], acc[1][t]);
        if constexpr (partial == 4) sum = V::add(sum, V::add(acc[2][t], acc[3][t]));
        V::store(sums + t * V::width, sum);
    }
}

template <class V, int R>
void token_bands(const TokenLinearArgs& a) {
    const size_t begin = size_t{a.band_begin} * R;
    for (size_t row = begin; row < size_t{a.band_end} * R && row < a.out_features; ++row) a.y[row] = a.bias[row];
    for_runs(a, [&](uint32_t band, size_t cell, size_t cells) {
        const float* const values = a.values + cell * R;
        fetch_columns(a.columns + cell, cells);
        alignas(64) float sums[R];
        if constexpr (static_cast<size_t>(R) < V::width) {
            run_sums<V, R>(a.x, values, a.columns + cell, cells, sums);
        } else {
            tall_sums<V, R>(a.x, values, a.columns + cell, cells, sums);
        }
        float* const y = a.y + size_t{band} * R;
        const size_t rows = a.out_features - size_t{band} * R;
        if (rows >= R) {
            for (int r = 0; r < R; ++r) y[r] += sums[r];
        } else {
            for (size_t r = 0; r < rows; ++r) y[r] += sums[r];
        }
    });
    finish_rows<V>(a);
}

template <class V>
void token_linear(const TokenLinearArgs& a) {
    switch (a.cell_rows) {
        case 1:
            return token_bands<V, 1>(a);
        case 2:
            return token_bands<V, 2>(a);
        case 4:
            return token_bands<V, 4>(a);
        case 8:
            return token_bands<V, 8>(a);
        default:
            return token_bands<V, 16>(a);
    }
}

template <class V>
inline typename V::Reg dot(const float* a, const float* b, size_t count) {
    typename V::Reg acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    size_t i = 0;
    for (; i + 4 * V::width <= count; i += 4 * V::width) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) acc[k] = V::fma(V::load(a + i + k * V::width), V::load(b + i + k * V::width), acc[k]);
    }
    for (; i < count; i += V::width) acc[0] = V::fma(V::load_first(a + i, count - i), V::load_first(b + i, count - i), acc[0]);
    return V::add(V::add(acc[0], acc[1]), V::add(acc[2], acc[3]));
}

template <class V>
inline float sum_lanes(typename V::Reg v) {
    float lanes[V::width];
    V::store(lanes, v);
    float sum = 0.0f;
    for (size_t i = 0; i < V::width; ++i) sum += lanes[i];
    return sum;
}

template <class V>
void token_dense(const TokenDenseArgs& a) {
    for (size_t row = a.row_begin; row < a.row_end; ++row) {
        a.y[row] = sum_lanes<V>(dot<V>(a.weight + row * a.in_features, a.x, a.in_features)) + a.bias[row];
    }
    if (a.activation == Activation::none) return;
    for (size_t row = a.row_begin; row < a.row_end; row += V::width) {
        const size_t count = a.row_end - row;
        V::store_first(a.y + row, activate<V>(V::load_first(a.y + row, count), a.activation), count);
    }
}

template <class V>
void token_norm(const TokenNormArgs& a) {
    const float count = static_cast<float>(a.features);
    // Sum of f(x) over the features; lanes behind the last do not count.
    const auto total = [&](const auto& f) {
        typename V::Reg acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
        size_t i = 0;
        for (; i + 4 * V::width <= a.features; i += 4 * V::width) {
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) acc[k] = V::add(acc[k], f(V::load(a.x + i + k * V::width)));
        }
        for (; i < a.features; i += V::width) {
            const size_t left = a.features - i;
            float lanes[V::width];
            V::store(lanes, f(V::load_first(a.x + i, left)));
            acc[0] = V::add(acc[0], V::load_first(lanes, left));
        }
        return sum_lanes<V>(V::add(V::add(acc[0], acc[1]), V::add(acc[2], acc[3])));
    };
    const auto mean = V::set1(a.rms ? 0.0f : total([](auto x) { return x; }) / count);
    const float square = total([mean](auto x) { return V::mul(V::sub(x, mean), V::sub(x, mean)); });
    const auto scale = V::div(V::set1(1.0f), V::sqrt(V::set1(square / count + a.eps)));
    for (size_t i = 0; i < a.features; i += V::width) {
        const size_t left = a.features - i;
        const auto x = V::mul(V::sub(V::load_first(a.x + i, left), mean), scale);
        const auto bias = a.rms ? V::zero() : V::load_first(a.bias + i, left);
        V::store_first(a.y + i, V::fma(x, V::load_first(a.weight + i, left), bias), left);
    }
}

// The numbers of the reference.
template <class V>
void token_quantize(const TokenQuantizeArgs& a) {
    auto largest = V::zero(), finite = V::zero();
    for (size_t i = 0; i < a.features; i += V::width) {
        const auto x = V::load_first(a.x + i, a.features - i);
        largest = V::max(largest, V::abs(x));
        finite = V::fma(x, V::zero(), finite);
    }
    float lanes[V::width];
    V::store(lanes, largest);
    float most = 0.0f;
    for (size_t i = 0; i < V::width; ++i) most = lanes[i] > most ? lanes[i] : most;
    // NaN and infinity take the way on which nothing is lost, and so do numbers so small that ARMv7 would flush some to 0.
    if (!(sum_lanes<V>(finite) == 0.0f) || most < 1e-30f) return token_quantize_reference(a);
    const bool zero = most / 127.0f < FLT_MIN;
    const auto inverse = V::set1(zero ? 0.0f : 127.0f / most);
    *a.scale = zero ? 0.0f : most / 127.0f;
    const auto limit = V::set1(127.0f), lowest = V::set1(-127.0f);
    for (size_t i = 0; i < a.features; i += V::width) {
        const size_t left = a.features - i < V::width ? a.features - i : V::width;
        V::store(lanes, V::max(V::min(V::round(V::mul(V::load_first(a.x + i, left), inverse)), limit), lowest));
        for (size_t lane = 0; lane < left; ++lane) a.q[i + lane] = static_cast<int8_t>(lanes[lane]);
    }
}

template <class V, int R>
void token_int8_bands(const TokenLinearInt8Args& a) {
    const size_t begin = size_t{a.band_begin} * R, bound = size_t{a.band_end} * R;
    const size_t end = bound < a.out_features ? bound : a.out_features;
    // Exact sums wait in y as integers.
    if (begin < end) std::memset(a.y + begin, 0, (end - begin) * sizeof(float));
    for_runs(a, [&](uint32_t band, size_t quad, size_t quads) {
        const int8_t* const values = a.values + quad * R * kQuad;
        fetch_columns(a.columns + quad * kQuad, quads * kQuad);
        alignas(64) int32_t sums[R], before[R] = {};
        V::template sums<R>(a.q, values, a.columns + quad * kQuad, quads, sums);
        float* const y = a.y + size_t{band} * R;
        const size_t left = a.out_features - size_t{band} * R, bytes = (left < R ? left : R) * sizeof(int32_t);
        if (left >= R) {
            std::memcpy(before, y, sizeof before);
        } else {
            std::memcpy(before, y, bytes);
        }
        for (int r = 0; r < R; ++r) before[r] += sums[r];
        if (left >= R) {
            std::memcpy(y, before, sizeof before);
        } else {
            std::memcpy(y, before, bytes);
        }
    });
    for (size_t row = begin; row < end; ++row) {
        int32_t sum;
        std::memcpy(&sum, a.y + row, sizeof sum);
        a.y[row] = static_cast<float>(sum) * (a.scale[row] * *a.token_scale) + a.bias[row];
    }
    finish_rows<typename V::Float>(a);
}

template <class V>
void token_linear_int8(const TokenLinearInt8Args& a) {
    switch (a.cell_rows) {
        case 1:
            return token_int8_bands<V, 1>(a);
        case 2:
            return token_int8_bands<V, 2>(a);
        case 4:
            return token_int8_bands<V, 4>(a);
        case 8:
            return token_int8_bands<V, 8>(a);
        default:
            return token_int8_bands<V, 16>(a);
    }
}

}  // namespace
}  // namespace lavolta
