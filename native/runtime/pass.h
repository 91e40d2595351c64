// What goes through the layers together: some sequences of a batch, or the new tokens of a session.
#pragma once

#include "model.h"

namespace lavolta {

class KvCache;

// More tokens than this go through the layers in several passes: activations stay in the cache, and memory is bounded.
constexpr size_t kPassTokens = 1024;

// `stride` is 1 for one token of a session: its activations are plain vectors, for which the token kernels are.
struct Model::Pass {
    const int32_t* token_ids;
    const int32_t* type_ids;
    const uint32_t* lengths;  // (sequences,)
    size_t first, sequences, tokens, stride;
    std::vector<size_t> starts;  // (sequences,), first token of each
    KvCache* cache;              // of the session, or null
    size_t past;                 // tokens that the session had before
    Profile* profile;
    uint64_t cancels;    // calls of `cancel` when the run began
    uint32_t level;      // of the present layer, then of the head
    float *x, *next;     // (hidden, stride)
    float *q, *context;  // (hidden, stride)
    float *k, *v;        // (kv_heads * head_size, stride)
    float *ffn, *gate;   // (ffn, ffn_stride), share the memory of the four above
    size_t ffn_tokens, ffn_stride;  // tokens that the feed-forward part takes at a time
    const float* angles;  // (head_size, stride) or null: cosines of each token's angles, then their sines
};

// One level from the first layer to the last.
class PresentLevel : public Course {
   public:
    void begin(uint32_t level) override { level_ = level; }
    uint32_t level_of(size_t, size_t, size_t) override { return level_; }

   private:
    uint32_t level_ = 0;
};

}  // namespace lavolta
