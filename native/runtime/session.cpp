#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#include "error.h"
#include "pass.h"

namespace lavolta {
namespace {

[[noreturn]] void fail_closed() { fail(LAVOLTA_MODEL_CLOSED, "the model is closed; open the bundle again."); }

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

size_t capacity_of(const Spec& spec, size_t max_tokens) {
    if (!spec.causal || spec.pooling != Pooling::none) {
        fail(LAVOLTA_NOT_CAUSAL, "the model is not a causal language model (causal, pooling none); run whole sequences instead.");
    }
    if (max_tokens > spec.max_tokens) {
        fail(LAVOLTA_TOO_LONG, "a session of " + std::to_string(max_tokens) + " tokens is longer than the model's limit of " +
                                   std::to_string(spec.max_tokens) + "; ask for fewer.");
    }
    return max_tokens ? max_tokens : spec.max_tokens;
}

}  // namespace

KvCache::KvCache(const Spec& spec, size_t capacity) : capacity_(capacity), heads_(spec.kv_heads) {
    const size_t tokens = round_up(capacity, kTokenPad);
    value_stride_ = round_up(spec.head_size(), kTokenPad);
    // More than 32 bits can count is more than such a machine has.
    const uint64_t all = uint64_t{spec.layers} * heads_ * tokens * (spec.head_size() + value_stride_);
    if (all > (SIZE_MAX / sizeof(float)) - kSlack) throw std::bad_alloc();
    key_floats_ = tokens * spec.head_size();
    head_floats_ = key_floats_ + tokens * value_stride_;
    // Not touched before it is needed: pages that no token has reached take no memory. Zeros, because kernels compute on the
    // padding. A vector may straddle a cache line; alignment would cost the page.
    memory_.reset(static_cast<float*>(std::calloc(static_cast<size_t>(all) + kSlack, sizeof(float))));
    if (!memory_) throw std::bad_alloc();
}

void KvCache::Free::operator()(float* p) const { std::free(p); }

Session::Session(const std::shared_ptr<Model>& model, size_t max_tokens)
    : model_(model), cache_(model->bundle().spec, capacity_of(model->bundle().spec, max_tokens)) {}

std::shared_ptr<Model> Session::model() const {
    std::shared_ptr<Model> model = model_.lock();
    if (!model) fail_closed();
    return model;
}

void Model::close() {
    std::lock_guard<std::mutex> lock(run_mutex_);
    closed_ = true;
}

void Model::check_open() const {
    if (closed_) fail_closed();
}

size_t Model::length(const Session& session) {
    std::lock_guard<std::mutex> lock(run_mutex_);
    check_open();
    return session.length_;
}

void Model::truncate(Session& session, size_t tokens) {
    std::lock_guard<std::mutex> lock(run_mutex_);
    check_open();
    if (tokens > session.length_) {
        fail(LAVOLTA_INVALID_ARGUMENT, "the session has " + std::to_string(session.length_) + " tokens and cannot be cut to " +
                                           std::to_string(tokens) + ".");
    }
    session.length_ = tokens;
}

void Model::append(Session& session, const int32_t* token_ids, size_t count, float* output, size_t output_floats) {
    if (count == 0 || !token_ids) fail(LAVOLTA_EMPTY_INPUT, "there are no tokens to append; give at least one.");
    check_tokens(token_ids, count, "");
    const size_t columns = bundle_.spec.outputs ? bundle_.spec.outputs : bundle_.spec.hidden;
    if (output && output_floats < columns) {
        fail(LAVOLTA_OUTPUT_TOO_SMALL, "the output has room for " + std::to_string(output_floats) + " numbers, " +
                                           std::to_string(columns) + " are needed.");
    }
    Pass pass{};
    pass.cancels = cancels_.load(std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(run_mutex_);
    check_open();
    const size_t room = session.cache_.capacity() - session.length_;
    if (count > room) {
        fail(LAVOLTA_CACHE_FULL, "the session has room for " + std::to_string(room) + " of " + std::to_string(count) +
                                     " more tokens; truncate it, or open one with more.");
    }
    const Pool::Burst burst(pool_);
    PresentLevel course;
    const uint32_t present = level();
    course.begin(present);
    pass.cache = &session.cache_;
    pass.sequences = 1;
    pass.starts.push_back(0);
    try {
        for (size_t done = 0; done < count; done += pass.tokens) {
            pass.token_ids = token_ids + done;
            pass.past = session.length_ + done;
            pass.tokens = std::min(kPassTokens, count - done);
            const uint32_t length = static_cast<uint32_t>(pass.tokens);
            pass.lengths = &length;
            if (profiling_) {
                pass.profile = &(pass.tokens == 1 ? token_profiles_ : profiles_)[present];
                if (pass.tokens == 1 || done == 0) ++pass.profile->runs;
            }
            reserve(pass);
            embed(pass);
            encode(pass, course);
            if (!output || done + pass.tokens < count) continue;
            size_t rows = 0, stride = 0;
            const float* result = head(pass, rows, stride);
            write_rows(result, stride, rows, columns, output);
        }
    } catch (...) {
        if (output) std::fill(output, output + columns, std::numeric_limits<float>::quiet_NaN());
        throw;
    }
    session.length_ += count;
}

// The new keys and values join the cache, then every new token looks at all up to itself.
void Model::attend_cached(const Pass& pass, size_t layer) {
    const Spec& spec = bundle_.spec;
    KvCache& cache = *pass.cache;
    const uint32_t head_size = spec.head_size();
    pool_.run(spec.kv_heads, [&](size_t head, uint32_t) {
        float* keys = cache.keys(layer, head);
        float* values = cache.values(layer, head);
        for (uint32_t f = 0; f < head_size; ++f) {
            const float* k = pass.k + (head * head_size + f) * pass.stride;
            const float* v = pass.v + (head * head_size + f) * pass.stride;
            for (size_t t = 0; t < pass.tokens; ++t) {
                const size_t at = pass.past + t;
                keys[(at / kTokenPad * head_size + f) * kTokenPad + at % kTokenPad] = k[t];
                values[at * cache.value_stride() + f] = v[t];
            }
        }
    });
    const size_t step = query_share(pass.past + pass.tokens), tiles = (pass.tokens + step - 1) / step;
    const uint32_t shared = spec.heads / spec.kv_heads;
    const size_t scratch_floats = round_up(cached_attention_scratch(pass.past + pass.tokens, head_size), 16);
    float* scratch = scratch_.reserve(uint64_t{scratch_floats} * pool_.threads());
    pool_.run(spec.kv_heads * tiles, [&](size_t item, uint32_t thread) {
        const size_t head = item / tiles, tile = item % tiles;
        CachedAttentionArgs args{};
        args.q = pass.q + head * shared * head_size * pass.stride;
        args.keys = cache.keys(layer, head);
        args.values = cache.values(layer, head);
        args.out = pass.context + head * shared * head_size * pass.stride;
        args.scratch = scratch + thread * scratch_floats;
        args.stride = pass.stride;
        args.value_stride = cache.value_stride();
        args.past = pass.past;
        args.query_begin = tile * step;
        args.query_end = std::min(args.query_begin + step, pass.tokens);
        args.heads = shared;
        args.head_size = head_size;
        args.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
        kernels_.cached_attention(args);
    });
}

}  // namespace lavolta
