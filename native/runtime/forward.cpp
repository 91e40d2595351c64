// The computation of docs/design/architecture.md, "Canonical model", over feature-major activations.
#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"
#include "model.h"
#include "pass.h"

namespace lavolta {
namespace {

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

// Floats between two features: whole cache lines, an odd number of them, so that the columns of a tile do not fall on the same
// few cache sets.
size_t stride_of(size_t tokens) { return (round_up(tokens, kTokenPad) / kTokenPad | 1) * kTokenPad; }

}  // namespace

size_t Model::pass_sequences(const lavolta_batch& batch, size_t first) const {
    size_t sequences = 1;
    for (size_t tokens = batch.lengths[first]; first + sequences < batch.sequences; ++sequences) {
        tokens += batch.lengths[first + sequences];
        if (tokens > kPassTokens) break;
    }
    return sequences;
}

void Model::run(const lavolta_batch& batch, float* output, size_t output_floats) {
    PresentLevel course;
    run(batch, output, output_floats, course, true);
}

void Model::run(const lavolta_batch& batch, float* output, size_t output_floats, Course& course, bool profiled) {
    check(batch);
    size_t rows, columns;
    output_shape(batch, rows, columns);
    if (!output || output_floats / columns < rows) {
        fail(LAVOLTA_OUTPUT_TOO_SMALL, "the output has room for " + std::to_string(output_floats) + " numbers, " +
                                           std::to_string(rows) + " x " + std::to_string(columns) + " are needed.");
    }
    const uint64_t cancels = cancels_.load(std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(run_mutex_);
    const Pool::Burst burst(pool_);
    const uint32_t present = level();
    course.begin(present);
    Pass pass{};
    pass.cancels = cancels;
    pass.profile = profiled && profiling_ ? &profiles_[present] : nullptr;
    if (pass.profile) ++pass.profile->runs;
    size_t token = 0;
    float* to = output;
    try {
        for (; pass.first < batch.sequences; pass.first += pass.sequences) {
            pass.token_ids = batch.token_ids + token;
            pass.type_ids = batch.type_ids ? batch.type_ids + token : nullptr;
            pass.lengths = batch.lengths + pass.first;
            pass.sequences = pass_sequences(batch, pass.first);
            pass.tokens = 0;
            pass.starts.clear();
            for (size_t s = 0; s < pass.sequences; ++s) {
                pass.starts.push_back(pass.tokens);
                pass.tokens += pass.lengths[s];
            }
            token += pass.tokens;
            reserve(pass);
            embed(pass);
            encode(pass, course);
            size_t out_rows = pass.tokens, out_stride = pass.stride;
            const float* result = batch.per_token ? pass.x : head(pass, out_rows, out_stride);
            write_rows(result, out_stride, out_rows, columns, to);
            to += out_rows * columns;
            course.pass_done();
        }
    } catch (...) {
        // Rows of the passes before are no answer.
        std::fill(output, output + rows * columns, std::numeric_limits<float>::quiet_NaN());
        throw;
    }
}

void Model::reserve(Pass& pass) {
    const Spec& spec = bundle_.spec;
    pass.stride = pass.cache && pass.tokens == 1 ? 1 : stride_of(pass.tokens);
    const uint64_t block = uint64_t{spec.hidden} * pass.stride, keys = uint64_t{spec.key_features()} * pass.stride;
    pass.ffn_tokens = std::min(ffn_block(pass.tokens), pass.tokens);
    pass.ffn_stride = pass.stride == 1 ? 1 : stride_of(pass.ffn_tokens);
    const uint64_t ffn = uint64_t{spec.ffn} * pass.ffn_stride;
    pass.x = hidden_.reserve(block + kSlack);
    pass.next = next_.reserve(block + kSlack);
    pass.q = pass.ffn = work_.reserve(std::max(2 * (block + keys), spec.ffn_gate ? 2 * ffn : ffn) + kSlack);
    pass.context = pass.q + block;
    pass.k = pass.context + block;
    pass.v = pass.k + keys;
    pass.gate = pass.ffn + ffn;
}

void Model::embed(Pass& pass) {
    const Spec& spec = bundle_.spec;
    timed(pass.profile ? &pass.profile->edge_ms[static_cast<size_t>(Edge::embeddings)] : nullptr, [&] {
        // A cache line of features of one table row after another, so that lines of both sides are used whole.
        constexpr size_t chunk = 16;
        pool_.run((spec.hidden + chunk - 1) / chunk, [&](size_t item, uint32_t) {
            const size_t last = std::min<size_t>((item + 1) * chunk, spec.hidden);
            for (size_t s = 0; s < pass.sequences; ++s) {
                for (size_t i = 0; i < pass.lengths[s]; ++i) {
                    const size_t token = pass.starts[s] + i;
                    const float* word = bundle_.word + static_cast<size_t>(pass.token_ids[token]) * spec.hidden;
                    const float* position = bundle_.position ? bundle_.position + (pass.past + i) * spec.hidden : nullptr;
                    const size_t type_id = pass.type_ids ? static_cast<size_t>(pass.type_ids[token]) : 0;
                    const float* type = bundle_.type ? bundle_.type + type_id * spec.hidden : nullptr;
                    float* x = pass.x + token;
                    for (size_t f = item * chunk; f < last; ++f) {
                        const float sum = position ? word[f] + position[f] : word[f];
                        x[f * pass.stride] = type ? sum + type[f] : sum;
                    }
                }
            }
        });
        if (spec.embedding_norm) normalize(pass, bundle_.embedding_norm, pass.x, pass.x);
        if (spec.position == Position::rope) turn(pass);
    });
}

// The angle of every token and pair of features, in double: positions in the thousands times a frequency lose what float has.
void Model::turn(Pass& pass) {
    const size_t half = bundle_.spec.head_size() / 2;
    float* angles = angles_.reserve(uint64_t{2} * half * pass.stride + kSlack);
    for (size_t s = 0; s < pass.sequences; ++s) {
        for (size_t i = 0; i < pass.lengths[s]; ++i) {
            for (size_t f = 0; f < half; ++f) {
                const double angle = static_cast<double>(pass.past + i) * static_cast<double>(bundle_.inv_freq[f]);
                angles[f * pass.stride + pass.starts[s] + i] = static_cast<float>(std::cos(angle));
                angles[(half + f) * pass.stride + pass.starts[s] + i] = static_cast<float>(std::sin(angle));
            }
        }
    }
    pass.angles = angles;
}

void Model::encode(Pass& pass, Course& course) {
    if (pass.profile) pass.profile->tokens += pass.tokens;
    const bool first = bundle_.spec.norm_first;
    const Activation activation = bundle_.spec.activation;
    for (size_t i = 0; i < bundle_.layers.size(); ++i) {
        if (cancels_.load(std::memory_order_relaxed) != pass.cancels) {
            fail(LAVOLTA_CANCELLED, "the run was cancelled before layer " + std::to_string(i) + "; run it again for an answer.");
        }
        const uint32_t level = pass.level = course.level_of(i, pass.first, pass.sequences);
        const Layer& layer = bundle_.layers[i];
        const auto ms = [&](Step step) {
            return pass.profile ? &pass.profile->layer_ms[i][static_cast<size_t>(step)] : nullptr;
        };
        const auto apply = [&](Step step, const Linear& linear_layer, const float* x, float* y, const float* residual,
                               Activation activation) {
            timed(ms(step), [&] {
                linear(pass.tokens, linear_layer, level, x, pass.stride, y, pass.stride, residual, activation);
            });
        };
        const auto prepare = [&](const float* x, std::initializer_list<const Linear*> readers) {
            timed(ms(Step::quantize), [&] { quantize(pass.tokens, pass.stride, x, readers); });
        };
        // The input of a part: normed, in `next`, or the state itself.
        const auto input = [&](Step step, const Norm& norm) {
            if (!first) return pass.x;
            timed(ms(step), [&] { normalize(pass, norm, pass.x, pass.next); });
            return pass.next;
        };
        // The state that a part leaves in `next` becomes `x`.
        const auto accept = [&](Step step, const Norm& norm) {
            if (first) return std::swap(pass.x, pass.next);
            timed(ms(step), [&] { normalize(pass, norm, pass.next, pass.x); });
        };
        const float* y = input(Step::attention_norm, layer.attention_norm);
        prepare(y, {&layer.query, &layer.key, &layer.value});
        apply(Step::query, layer.query, y, pass.q, nullptr, Activation::none);
        apply(Step::key, layer.key, y, pass.k, nullptr, Activation::none);
        apply(Step::value, layer.value, y, pass.v, nullptr, Activation::none);
        timed(ms(Step::attention), [&] {
            if (pass.angles) rotate(pass);
            pass.cache ? attend_cached(pass, i) : attend(pass);
        });
        prepare(pass.context, {&layer.output});
        apply(Step::output, layer.output, pass.context, pass.next, pass.x, Activation::none);
        accept(Step::attention_norm, layer.attention_norm);
        y = input(Step::ffn_norm, layer.ffn_norm);
        for (size_t begin = 0; begin < pass.tokens; begin += pass.ffn_tokens) {
            const size_t tokens = std::min(pass.ffn_tokens, pass.tokens - begin);
            const auto up = [&](Step step, const Linear& part, float* to, Activation function) {
                timed(ms(step), [&] {
                    linear(tokens, part, level, y + begin, pass.stride, to, pass.ffn_stride, nullptr, function);
                });
            };
            timed(ms(Step::quantize), [&] {
                quantize(tokens, pass.stride, y + begin, {&layer.up, layer.gate ? &*layer.gate : &layer.up});
            });
            up(Step::up, layer.up, pass.ffn, layer.gate ? Activation::none : activation);
            if (layer.gate) {
                up(Step::gate, *layer.gate, pass.gate, Activation::none);
                timed(ms(Step::gate), [&] { gate(pass); });
            }
            timed(ms(Step::quantize), [&] { quantize(tokens, pass.ffn_stride, pass.ffn, {&layer.down}); });
            timed(ms(Step::down), [&] {
                // In place of the input where that is a copy, the normed one: each block reads its tokens before it writes them.
                linear(tokens, layer.down, level, pass.ffn, pass.ffn_stride, pass.next + begin, pass.stride, pass.x + begin,
                       Activation::none);
            });
        }
        accept(Step::ffn_norm, layer.ffn_norm);
    }
    if (first) {
        timed(pass.profile ? &pass.profile->edge_ms[static_cast<size_t>(Edge::final_norm)] : nullptr,
              [&] { normalize(pass, bundle_.final_norm, pass.x, pass.x); });
    }
    course.layers_done();
}

void Model::rotate(const Pass& pass) {
    const Spec& spec = bundle_.spec;
    const size_t size = spec.head_size() * pass.stride;
    pool_.run(spec.heads + spec.kv_heads, [&](size_t item, uint32_t) {
        RotateArgs args{};
        args.x = item < spec.heads ? pass.q + item * size : pass.k + (item - spec.heads) * size;
        args.cos = pass.angles;
        args.sin = pass.angles + spec.head_size() / 2 * pass.stride;
        // Of one token the features of each half lie side by side, as tokens do otherwise.
        const uint32_t half = spec.head_size() / 2;
        args.stride = pass.stride == 1 ? half : pass.stride;
        args.token_end = pass.stride == 1 ? half : pass.tokens;
        args.head_size = pass.stride == 1 ? 2 : spec.head_size();
        kernels_.rotate(args);
    });
}

void Model::gate(const Pass& pass) {
    constexpr size_t rows = 64;
    const size_t ffn = bundle_.spec.ffn;
    pool_.run((ffn + rows - 1) / rows, [&](size_t item, uint32_t) {
        const size_t begin = item * rows * pass.ffn_stride, end = std::min(ffn, (item + 1) * rows) * pass.ffn_stride;
        kernels_.gate({pass.gate + begin, pass.ffn + begin, end - begin, bundle_.spec.activation});
    });
}

void Model::attend(const Pass& pass) {
    const Spec& spec = bundle_.spec;
    struct Item {
        uint32_t sequence, head;
        size_t query;
    };
    std::vector<Item> items;
    for (uint32_t s = 0; s < pass.sequences; ++s) {
        const size_t step = query_share(pass.lengths[s]);
        for (uint32_t h = 0; h < spec.heads; ++h) {
            for (size_t query = 0; query < pass.lengths[s]; query += step) items.push_back({s, h, query});
        }
    }
    const uint32_t head_size = spec.head_size(), shared = spec.heads / spec.kv_heads;
    const size_t scratch_floats = round_up(attention_scratch(head_size), 16);
    float* scratch = scratch_.reserve(uint64_t{scratch_floats} * pool_.threads());
    pool_.run(items.size(), [&](size_t index, uint32_t thread) {
        const Item& item = items[index];
        const size_t at = size_t{item.head} * head_size * pass.stride + pass.starts[item.sequence];
        const size_t key_at = size_t{item.head / shared} * head_size * pass.stride + pass.starts[item.sequence];
        AttentionArgs args{};
        args.q = pass.q + at;
        args.k = pass.k + key_at;
        args.v = pass.v + key_at;
        args.out = pass.context + at;
        args.scratch = scratch + thread * scratch_floats;
        args.stride = pass.stride;
        args.tokens = pass.lengths[item.sequence];
        args.query_begin = item.query;
        args.query_end = std::min(item.query + query_share(args.tokens), args.tokens);
        args.head_size = head_size;
        args.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
        args.causal = spec.causal;
        kernels_.attention(args);
    });
}

void Model::normalize(const Pass& pass, const Norm& norm, const float* from, float* to) {
    const Spec& spec = bundle_.spec;
    if (pass.stride == 1) {
        return kernels_.token_norm({from, norm.weight, norm.bias, to, spec.hidden, spec.norm_eps, spec.norm == NormKind::rms});
    }
    // Four registers of tokens, or fewer where not every thread would get some.
    const size_t share = pass.tokens / (2 * pool_.threads()) / kTokenPad * kTokenPad;
    const size_t chunk = std::min(std::max(share, kTokenPad), 4 * kTokenPad);
    pool_.run((pass.tokens + chunk - 1) / chunk, [&](size_t item, uint32_t) {
        NormArgs args{};
        args.x = from;
        args.weight = norm.weight;
        args.bias = norm.bias;
        args.y = to;
        args.stride = pass.stride;
        args.token_begin = item * chunk;
        args.token_end = std::min(args.token_begin + chunk, pass.tokens);
        args.features = spec.hidden;
        args.rms = spec.norm == NormKind::rms;
        args.eps = spec.norm_eps;
        kernels_.norm(args);
    });
}

// Pooling (of a session: the last token) and head: the result is (columns, stride), `rows` of its tokens are real.
float* Model::head(const Pass& pass, size_t& rows, size_t& stride) {
    const Spec& spec = bundle_.spec;
    float* at = pass.x;
    timed(pass.profile ? &pass.profile->edge_ms[static_cast<size_t>(Edge::head)] : nullptr, [&] {
        if (pass.cache) {
            rows = stride = 1;
            at = head_a_.reserve(uint64_t{spec.hidden} + kSlack);
            for (size_t f = 0; f < spec.hidden; ++f) at[f * stride] = pass.x[f * pass.stride + pass.tokens - 1];
        } else if (spec.pooling != Pooling::none) {
            rows = pass.sequences;
            stride = stride_of(rows);
            at = head_a_.reserve(uint64_t{spec.hidden} * stride + kSlack);
            for (size_t f = 0; f < spec.hidden; ++f) {
                for (size_t s = 0; s < pass.sequences; ++s) {
                    const float* x = pass.x + f * pass.stride + pass.starts[s];
                    float sum = x[0];
                    if (spec.pooling == Pooling::mean) {
                        for (size_t i = 1; i < pass.lengths[s]; ++i) sum += x[i];
                        sum /= static_cast<float>(pass.lengths[s]);
                    }
                    at[f * stride + s] = sum;
                }
            }
        }
        if (pass.profile) pass.profile->head_tokens += rows;
        size_t columns = spec.hidden;
        if (spec.has_head_dense) {
            float* y = at == pass.x ? pass.next : head_b_.reserve(uint64_t{spec.hidden} * stride + kSlack);
            dense(bundle_.head_dense_weight, bundle_.head_dense_bias, spec.hidden, spec.head_dense, at, y, rows, stride);
            at = y;
        }
        if (spec.outputs) {
            columns = spec.outputs;
            float* y = logits_.reserve(uint64_t{columns} * stride + kSlack);
            if (bundle_.head_out) {
                quantize(rows, stride, at, {&*bundle_.head_out});
                linear(rows, *bundle_.head_out, pass.level, at, stride, y, stride, nullptr, Activation::none);
            } else {
                dense(bundle_.head_out_weight, bundle_.head_out_bias, spec.outputs, Activation::none, at, y, rows, stride);
            }
            at = y;
        }
        if (!spec.normalize) return;
        for (size_t row = 0; row < rows; ++row) {
            double square = 0.0;
            for (size_t f = 0; f < columns; ++f) square += static_cast<double>(at[f * stride + row]) * at[f * stride + row];
            const float scale = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
            for (size_t f = 0; f < columns; ++f) at[f * stride + row] *= scale;
        }
    });
    return at;
}

void Model::write_rows(const float* from, size_t stride, size_t rows, size_t columns, float* to) {
    constexpr size_t chunk = 16;
    pool_.run((rows + chunk - 1) / chunk, [&](size_t item, uint32_t) {
        const size_t end = std::min(rows, (item + 1) * chunk);
        // Blocks of columns, so that the rows that are written stay in the cache.
        for (size_t first = 0; first < columns; first += 256) {
            const size_t last = std::min(columns, first + 256);
            for (size_t column = first; column < last; ++column) {
                for (size_t row = item * chunk; row < end; ++row) to[row * columns + column] = from[column * stride + row];
            }
        }
    });
}

}  // namespace lavolta
