// The keys and values of the tokens that a sequence has so far, and the C interface's session around them.
#pragma once

#include <memory>

#include "model.h"

namespace lavolta {

// Keys and values of every layer, laid out for the attention of one token (kernels.h, CachedAttentionArgs).
class KvCache {
   public:
    KvCache(const Spec& spec, size_t capacity);

    size_t capacity() const { return capacity_; }
    size_t value_stride() const { return value_stride_; }
    // Of one head: (key blocks, head_size, kTokenPad).
    float* keys(size_t layer, size_t head) { return memory_.get() + (layer * heads_ + head) * head_floats_; }
    // Of one head: (tokens, value_stride).
    float* values(size_t layer, size_t head) { return keys(layer, head) + key_floats_; }

   private:
    struct Free {
        void operator()(float* p) const;
    };
    size_t capacity_, heads_, value_stride_, key_floats_, head_floats_;
    std::unique_ptr<float[], Free> memory_;
};

class Session {
   public:
    // `max_tokens` 0: as many as the model takes.
    Session(const std::shared_ptr<Model>& model, size_t max_tokens);

    // Throws where the model was closed.
    std::shared_ptr<Model> model() const;

   private:
    friend class Model;
    std::weak_ptr<Model> model_;
    KvCache cache_;
    size_t length_ = 0;  // tokens; guarded by the model's run mutex
};

}  // namespace lavolta
