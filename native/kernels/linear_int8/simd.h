// Linear layers on int8 quads for any register type: four kept columns, whichever they are, are interleaved in registers, then
// multiplied with the broadcast quads of R rows.
//
// A register of W bytes of one column holds tokens in the order of `token_slot`. Interleaving four columns gives four registers
// of whole quads, number j for tokens 16 j to 16 j + W / 4 - 1 of the block (32-byte registers: of each half of the block, 8
// tokens further; 16-byte registers, those of Arm: of each quarter, 4 tokens further). Groups of tokens that are not there are
// not interleaved. In a narrow block, whose rows are 16 bytes, one register is made of W / 4 neighboring tokens; a register of Arm
// is a row, and its quads are those of neighboring fours.
#pragma once

#include <cstring>

#include "../math.h"
#include "unsaturated.h"

namespace lavolta {
namespace {

// x[0..T) = quads of register numbers First .. First + T - 1.
template <class V, int First, int T>
inline __attribute__((always_inline)) void interleave(typename V::Inputs (&x)[T], const uint8_t* u, const uint16_t* columns) {
    const auto a = V::load(u + columns[0] * kQuantBlock), b = V::load(u + columns[1] * kQuantBlock);
    const auto c = V::load(u + columns[2] * kQuantBlock), d = V::load(u + columns[3] * kQuantBlock);
    constexpr int end = First + T;
    if constexpr (First < 2) {
        const auto ab = V::lo8(a, b), cd = V::lo8(c, d);
        if constexpr (First <= 0 && end > 0) x[0 - First] = V::inputs(V::lo16(ab, cd));
        if constexpr (First <= 1 && end > 1) x[1 - First] = V::inputs(V::hi16(ab, cd));
    }
    if constexpr (end > 2) {
        const auto ab = V::hi8(a, b), cd = V::hi8(c, d);
        if constexpr (First <= 2 && end > 2) x[2 - First] = V::inputs(V::lo16(ab, cd));
        if constexpr (First <= 3 && end > 3) x[3 - First] = V::inputs(V::hi16(ab, cd));
    }
}

// acc[r][t] += one quad of row r times its four columns, registers First to First + T - 1.
template <class V, int R, int First, int T, size_t Width>
inline __attribute__((always_inline)) void add_broadcast_quad(typename V::Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                    const uint16_t* columns) {
    typename V::Inputs x[T];
    if constexpr (Width == kNarrowBlock) {
        static_assert(First == 0 && T == 1, "a narrow row has one register");
        x[0] = V::inputs(V::narrow(u + columns[0] * Width, u + columns[1] * Width, u + columns[2] * Width, u + columns[3] * Width));
    } else {
        interleave<V, First, T>(x, u, columns);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        int32_t quad;
        std::memcpy(&quad, values + r * kQuad, sizeof quad);
        const auto w = V::weights(quad);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = V::dot(acc[r][t], x[t], w);
    }
}

template <class V, int R, int First, int T, size_t Width>
inline __attribute__((always_inline)) void add_quad(typename V::Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                    const uint16_t* columns) {
    if constexpr (V::width == kNarrowBlock) {
        V::template add_quad<R, First, T, Width>(acc, values, u, columns);
    } else {
        add_broadcast_quad<V, R, First, T, Width>(acc, values, u, columns);
    }
}

// Tokens from one register of a row to the next.
template <class V, size_t Width>
constexpr size_t register_step() {
    return V::width == kNarrowBlock && Width == kNarrowBlock ? 4 : 16;
}

// The quads of R rows of a band, in runs, and whether they are the first and the last that the rows have: between two parts of
// a band the sums wait in y. Inputs are u = q + 128, so 128 times the sum of a row's values is taken off what they give.
struct Source {
    const int8_t* values;     // of the first row, `step` bytes from a quad to the next
    const uint16_t* columns;  // (quads, 4)
    const Run *runs, *runs_end;
    const int32_t* begin;  // (R,), minus 128 times the sum of each row's values
    size_t step;
    bool first, last;
};

// Fetches what the tile of the next rows will write and add: a sparse band is done before they could come by themselves.
inline void fetch_rows(const LinearInt8Args& a, size_t row, int rows, size_t token) {
    for (int r = 0; r < rows && row + r < a.out_features; ++r) {
        const size_t at = (row + r) * a.stride + token;
        __builtin_prefetch(a.y + at);
        if (a.residual) __builtin_prefetch(a.residual + at);
    }
}

// Rows [row, row + R) of the layer, T registers from number First of the bytes at u; `token` is that of register 0.
template <class V, int R, int First, int T, size_t Width>
__attribute__((noinline)) void tile(const LinearInt8Args& a, const Source& source, size_t row, const uint8_t* u, size_t token) {
    using F = typename V::Float;
    const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
    // Few sums would wait for their own last product: twice as many take turns. Integers may be added in any order. A sum of
    // products that were computed apart waits for an addition only.
    constexpr bool few = R * T <= 4 && !V::saturates;
    if constexpr (V::saturates) {
        // Two tiles share two cache lines of 16 tokens: each fetches one.
        if (source.last) fetch_rows(a, row + R, R, token / 16 * 16 + 16 * (First + (T > 1 ? token % 16 / 8 : 0)));
    }
    typename V::Reg acc[R][T];
    [[maybe_unused]] typename V::Reg more[R][T];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        const auto start = V::set1(V::zero == 0 ? 0 : source.begin[r]);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            acc[r][t] = start;
            if constexpr (V::saturates) {
                if (!source.first && r < rows) {
                    const float* waiting = a.y + (row + r) * a.stride + token + register_step<V, Width>() * (First + t);
                    acc[r][t] = V::add(start, V::load_sums(waiting));
                }
            }
            if constexpr (few) more[r][t] = V::set1(0);
        }
    }
    for (const Run* run = source.runs; run < source.runs_end; ++run) {
        const size_t first = run->first, count = run->count;
        const uint16_t* columns = source.columns + first * kQuad;
        const int8_t* values = source.values + first * source.step;
        const size_t step = source.step;
        size_t i = 0;
        if constexpr (few) {
            for (; i + 2 <= count; i += 2) {
                add_quad<V, R, First, T, Width>(acc, values + i * step, u, columns + i * kQuad);
                add_quad<V, R, First, T, Width>(more, values + (i + 1) * step, u, columns + (i + 1) * kQuad);
            }
        }
        for (; i < count; ++i) add_quad<V, R, First, T, Width>(acc, values + i * step, u, columns + i * kQuad);
    }
    if constexpr (few) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) acc[r][t] = V::add(acc[r][t], more[r][t]);
        }
    }
    if constexpr (V::saturates) {
        if (!source.last) {
            for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 16
                for (int t = 0; t < T; ++t) {
                    V::store_sums(a.y + (row + r) * a.stride + token + register_step<V, Width>() * (First + t), acc[r][t]);
                }
            }
            return;
        }
    }
    // Copies: what is stored could be any of the arguments, for all the compiler knows.
    const size_t stride = a.stride;
    float* const y = a.y + row * stride + token + register_step<V, Width>() * First;
    const float* const residual = a.residual ? a.residual + row * stride + token + register_step<V, Width>() * First : nullptr;
    const float *const scales = a.scale + row, *const biases = a.bias + row;
    const Activation activation = a.activation;
    typename F::Reg token_scale[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) token_scale[t] = F::load(a.token_scale + token + register_step<V, Width>() * (First + t));
    // The same operations in the same order as the reference: without an activation, the same bits.
    const auto write = [&](int count, bool add) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            if (r >= count) break;
            const auto scale = F::set1(scales[r]), bias = F::set1(biases[r]);
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) {
                const size_t at = r * stride + register_step<V, Width>() * t;
                auto v = F::add(F::mul(V::to_float(acc[r][t]), F::mul(scale, token_scale[t])), bias);
                if (add) v = F::add(v, F::load(residual + at));
                F::store(y + at, v);
            }
        }
    };
    const bool plain = activation == Activation::none;
    // Without a condition for every row where all rows are there.
    if (rows < R) {
        write(rows, plain && residual);
    } else if (plain && residual) {
        write(R, true);
    } else {
        write(R, false);
    }
    if (plain) return;
    for (int r = 0; r < rows; ++r) {
        for (int t = 0; t < T; ++t) {
            const size_t at = r * stride + register_step<V, Width>() * t;
            const auto v = activate<F>(F::load(y + at), activation);
            F::store(y + at, residual ? F::add(v, F::load(residual + at)) : v);
        }
    }
}

// Most registers of tokens beside R rows.
template <class V, int R>
constexpr int widest() {
    if constexpr (V::width == kNarrowBlock) return V::widest(R);
    return V::width == 64 ? (R == 8 ? 2 : 4) : (R == 1 ? 4 : 2);
}

template <class V>
constexpr int tallest() {
    if constexpr (V::width == kNarrowBlock) return V::tallest;
    return V::width == 64 ? 8 : 4;
}

// Registers [First, registers) of one load, `widest` at a time.
template <class V, int R, size_t Width, int First = 0>
inline void tiles(const LinearInt8Args& a, const Source& source, size_t row, const uint8_t* u, size_t token, int registers) {
    constexpr int wide = widest<V, R>();
    if constexpr (First < 4) {
        const int left = registers - First;
        if (left <= 0) return;
        if (left >= wide) {
            tile<V, R, First, wide, Width>(a, source, row, u, token);
            return tiles<V, R, Width, First + wide>(a, source, row, u, token, registers);
        }
        if constexpr (wide > 1) {
            if (left == 1) return tile<V, R, First, 1, Width>(a, source, row, u, token);
        }
        if constexpr (wide > 2 && First == 0) {
            if (left == 2) return tile<V, R, 0, 2, Width>(a, source, row, u, token);
            return tile<V, R, 0, 3, Width>(a, source, row, u, token);
        }
    }
}

// Rows [row, row + R) and the block of tokens from `block` on.
template <class V, int R>
inline void block_tiles(const LinearInt8Args& a, const Source& source, size_t row, size_t block) {
    constexpr size_t lanes = V::width / kQuad;
    const uint8_t* u = a.u + block * a.in_features;
    const size_t tokens = a.token_end - block;
    if (tokens <= kNarrowBlock) {
        if constexpr (V::width == kNarrowBlock) {
            tiles<V, R, kNarrowBlock>(a, source, row, u, block, static_cast<int>((tokens + 3) / 4));
        } else {
            for (size_t t = 0; t < tokens; t += lanes) tile<V, R, 0, 1, kNarrowBlock>(a, source, row, u + t, block + t);
        }
        return;
    }
    // One load of a whole block, or one for each half or quarter of it: tokens 0-7 and 8-15 of every 16.
    for (size_t t = 0; t < kNarrowBlock; t += lanes) {
        const size_t groups = (tokens - t + 15) / 16;
        tiles<V, R, kQuantBlock>(a, source, row, u + t * kQuad, block + t, groups < 4 ? static_cast<int>(groups) : 4);
    }
}

// A sparser level skips what only denser ones keep, so every band begins somewhere new: its first weights are fetched while the
// bands before it are computed. From there on the hardware follows by itself.
constexpr uint32_t kBandsAhead = 2;
constexpr size_t kFetchedBytes = 1024;

inline void fetch(const LinearInt8Args& a, uint32_t band) {
    if (band >= a.band_end) return;
    const auto lines = [](const void* from, size_t bytes) {
        for (size_t b = 0; b < bytes && b < kFetchedBytes; b += 64) __builtin_prefetch(static_cast<const char*>(from) + b);
    };
    const size_t row_bytes = a.cell_rows * kQuad;
    for (uint32_t r = a.run_ptr[band]; r < a.run_ptr[band + 1]; ++r) {
        const Run& run = a.runs[r];
        lines(a.values + run.first * row_bytes, run.count * row_bytes);
        lines(a.columns + run.first * kQuad, run.count * kQuad * sizeof(uint16_t));
    }
}

// begin (cell_rows,): minus V::zero times the sum of each row's values in the runs. Lanes are rows of quads, one after another.
template <class V>
inline void row_begins(const LinearInt8Args& a, const Run* runs, const Run* runs_end, int32_t (&begin)[kMostCellRows]) {
    constexpr size_t lanes = V::width / kQuad;
    const size_t rows = a.cell_rows, quad_bytes = rows * kQuad;
    const size_t step = quad_bytes > V::width ? quad_bytes : V::width;
    std::memset(begin, 0, sizeof begin);
    for (size_t part = 0; part < step; part += V::width) {
        // Four sums take turns: one would wait for itself.
        typename V::Reg sums[4] = {V::set1(0), V::set1(0), V::set1(0), V::set1(0)};
        for (const Run* run = runs; run < runs_end; ++run) {
            const int8_t* at = a.values + run->first * quad_bytes + part;
            size_t bytes = run->count * quad_bytes;
            for (; bytes >= 4 * step; bytes -= 4 * step, at += 4 * step) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) sums[i] = V::add_weights(sums[i], at + i * step);
            }
            for (; bytes >= step; bytes -= step, at += step) sums[0] = V::add_weights(sums[0], at);
            if (bytes == 0) continue;
            int8_t last[V::width] = {};
            std::memcpy(last, at, bytes);
            sums[1] = V::add_weights(sums[1], last);
        }
        const auto sum = V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3]));
        int32_t of_lanes[lanes];
        std::memcpy(of_lanes, &sum, sizeof sum);
        for (size_t lane = 0; lane < lanes; ++lane) begin[(part / kQuad + lane) % rows] -= V::zero * of_lanes[lane];
    }
}

template <class V, int R>
void bands(const LinearInt8Args& a) {
    int32_t begin[kMostCellRows] = {};
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        fetch(a, band + kBandsAhead);
        const Run* const runs = a.runs + a.run_ptr[band];
        const Run* const runs_end = a.runs + a.run_ptr[band + 1];
        if constexpr (V::zero != 0) row_begins<V>(a, runs, runs_end, begin);
        for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
            for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
                const size_t row = size_t{band} * a.cell_rows + first_row;
                if (row >= a.out_features) break;
                const Source source{a.values + first_row * kQuad, a.columns, runs, runs_end, begin + first_row, a.cell_rows * kQuad,
                                    true, true};
                block_tiles<V, R>(a, source, row, block);
            }
        }
    }
}

// The same where pairs of products may not be added in 16 bits as they are: the quads are copied and made harmless first.
template <class V, int R>
void saturating_bands(const LinearInt8Args& a) {
    HarmlessQuads<R> part;
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        fetch(a, band + kBandsAhead);
        uint32_t quads = 0;
        for (uint32_t run = a.run_ptr[band]; run < a.run_ptr[band + 1]; ++run) quads += a.runs[run].count;
        for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
            const size_t row = size_t{band} * a.cell_rows + first_row;
            if (row >= a.out_features) break;
            // Equal parts, so that none is too short to be worth its visit.
            const uint32_t parts = (quads + kPartQuads - 1) / kPartQuads, most = parts ? (quads + parts - 1) / parts : 0;
            bool first = true;
            const auto compute = [&](bool last) {
                alignas(16) int32_t begin[4];
                V::template make_harmless<R>(part, begin);
                const Run all{0, part.quads};
                const Source source{part.values, part.columns, &all, &all + 1, begin, R * kQuad, first, last};
                for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) block_tiles<V, R>(a, source, row, block);
                part.quads = 0;
                first = false;
            };
            for (uint32_t run = a.run_ptr[band]; run < a.run_ptr[band + 1]; ++run) {
                size_t quad = a.runs[run].first;
                for (uint32_t left = a.runs[run].count; left > 0;) {
                    if (part.quads == most) compute(false);
                    const uint32_t count = left < most - part.quads ? left : most - part.quads;
                    part.append(a.values + (quad * a.cell_rows + first_row) * kQuad, a.cell_rows * kQuad,
                                a.columns + quad * kQuad, count);
                    quad += count;
                    left -= count;
                }
            }
            compute(true);
        }
    }
}

template <class V, int R>
inline void bands_of(const LinearInt8Args& a) {
    if constexpr (V::saturates) {
        saturating_bands<V, R>(a);
    } else {
        bands<V, R>(a);
    }
}

template <class V>
void linear_int8(const LinearInt8Args& a) {
    switch (a.cell_rows) {
        case 1:
            return bands_of<V, 1>(a);
        case 2:
            return bands_of<V, 2>(a);
        case 4:
            return bands_of<V, 4>(a);
        default:
            return bands_of<V, tallest<V>()>(a);
    }
}

}  // namespace
}  // namespace lavolta
