// Single kernels for the tests, on arrays whose padding is poisoned.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "cpu.h"
#include "kernels.h"

namespace {

lavolta::KernelSet kernels_of(const std::string& isa) {
    for (int i = 0; i < lavolta::kIsaCount; ++i) {
        const auto candidate = static_cast<lavolta::Isa>(i);
        if (isa == lavolta::isa_name(candidate) && lavolta::cpu_has(candidate)) return lavolta::select_kernels(candidate);
    }
    throw nb::value_error("this CPU or build does not have the instruction set");
}

// Feature-major copy of (features, tokens) with the padding that kernels may touch; `poison` marks the padding.
struct Padded {
    size_t stride;
    std::vector<float> values;

    Padded(size_t features, size_t tokens, float poison)
        : stride((tokens + lavolta::kTokenPad - 1) / lavolta::kTokenPad * lavolta::kTokenPad),
          values(features * stride + lavolta::kSlack, poison) {}

    Padded(const Matrix& from, float poison) : Padded(from.shape(0), from.shape(1), poison) {
        for (size_t f = 0; f < from.shape(0); ++f) {
            std::memcpy(values.data() + f * stride, from.data() + f * from.shape(1), from.shape(1) * sizeof(float));
        }
    }

    Output take(size_t features, size_t tokens) const {
        Output out = make_output(features, tokens);
        for (size_t f = 0; f < features; ++f) {
            std::memcpy(out.data() + f * tokens, values.data() + f * stride, tokens * sizeof(float));
        }
        return out;
    }
};

lavolta::Activation activation_of(const std::string& name) {
    if (name == "gelu") return lavolta::Activation::gelu;
    if (name == "relu") return lavolta::Activation::relu;
    if (name == "tanh") return lavolta::Activation::tanh;
    if (name == "gelu_tanh") return lavolta::Activation::gelu_tanh;
    if (name == "silu") return lavolta::Activation::silu;
    return lavolta::Activation::none;
}

Output test_linear(const std::string& isa, const Matrix& values, const Columns& columns, const Pairs& runs,
                   const Counts& run_ptr, const Vector& bias, const Matrix& x, const std::optional<Matrix>& residual,
                   const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    const size_t tokens = x.shape(1);
    const Padded in(x, NAN);
    Padded out(bias.size(), tokens, NAN);
    std::optional<Padded> added;
    if (residual) added.emplace(*residual, NAN);
    lavolta::LinearArgs args{};
    args.values = values.data();
    args.columns = columns.data();
    args.runs = reinterpret_cast<const lavolta::Run*>(runs.data());
    args.run_ptr = run_ptr.data();
    args.bias = bias.data();
    args.x = in.values.data();
    args.residual = added ? added->values.data() : nullptr;
    args.y = out.values.data();
    args.x_stride = args.stride = in.stride;
    args.in_features = static_cast<uint32_t>(x.shape(0));
    args.token_end = tokens;
    args.band_end = static_cast<uint32_t>(run_ptr.size() - 1);
    args.cell_rows = static_cast<uint32_t>(values.shape(1));
    args.out_features = static_cast<uint32_t>(bias.size());
    args.activation = activation_of(activation);
    kernels.linear(args);
    return out.take(bias.size(), tokens);
}

// (features, tokens) bytes in the order of the tokens, and the scale of each token.
nb::tuple test_quantize(const std::string& isa, const Matrix& x) {
    const size_t features = x.shape(0), tokens = x.shape(1);
    const Padded in(x, NAN);
    std::vector<uint8_t> bytes(lavolta::quantized_bytes(features, tokens));
    std::vector<float> scale(in.stride);
    lavolta::QuantizeArgs args{};
    args.x = in.values.data();
    args.u = bytes.data();
    args.scale = scale.data();
    args.stride = in.stride;
    args.token_end = tokens;
    args.features = static_cast<uint32_t>(features);
    kernels_of(isa).quantize(args);
    std::string ordered(features * tokens, '\0');
    for (size_t f = 0; f < features; ++f) {
        for (size_t t = 0; t < tokens; ++t) {
            ordered[f * tokens + t] = static_cast<char>(bytes[lavolta::quantized_index(features, tokens, f, t)]);
        }
    }
    Output scales = make_output(1, tokens);
    std::memcpy(scales.data(), scale.data(), tokens * sizeof(float));
    return nb::make_tuple(nb::bytes(ordered.data(), ordered.size()), scales);
}

// u (in_features, tokens) in the order of the tokens. Tokens that the kernel may read but that are not there are 255.
Output test_linear_int8(const std::string& isa, const Quads& values, const Columns& columns, const Pairs& runs, const Counts& run_ptr,
                        const Vector& scale, const Vector& bias, const Bytes& u, const Vector& token_scale,
                        const std::optional<Matrix>& residual, const std::string& activation) {
    const size_t features = u.shape(0), tokens = u.shape(1);
    std::vector<uint8_t> bytes(lavolta::quantized_bytes(features, tokens), 255);
    for (size_t f = 0; f < features; ++f) {
        for (size_t t = 0; t < tokens; ++t) bytes[lavolta::quantized_index(features, tokens, f, t)] = u.data()[f * tokens + t];
    }
    Padded out(bias.size(), tokens, NAN);
    std::optional<Padded> added;
    if (residual) added.emplace(*residual, NAN);
    std::vector<float> token_scales(out.stride, NAN);
    std::memcpy(token_scales.data(), token_scale.data(), tokens * sizeof(float));
    lavolta::LinearInt8Args args{};
    args.values = values.data();
    args.columns = columns.data();
    args.runs = reinterpret_cast<const lavolta::Run*>(runs.data());
    args.run_ptr = run_ptr.data();
    args.scale = scale.data();
    args.bias = bias.data();
    args.u = bytes.data();
    args.token_scale = token_scales.data();
    args.residual = added ? added->values.data() : nullptr;
    args.y = out.values.data();
    args.stride = out.stride;
    args.in_features = static_cast<uint32_t>(features);
    args.token_end = tokens;
    args.band_end = static_cast<uint32_t>(run_ptr.size() - 1);
    args.cell_rows = static_cast<uint32_t>(values.shape(1));
    args.out_features = static_cast<uint32_t>(bias.size());
    args.activation = activation_of(activation);
    kernels_of(isa).linear_int8(args);
    return out.take(bias.size(), tokens);
}

Output test_dense(const std::string& isa, const Matrix& weight, const Vector& bias, const Matrix& x,
                  const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    const Padded in(x, NAN);
    Padded out(bias.size(), x.shape(1), NAN);
    lavolta::DenseArgs args{};
    args.weight = weight.data();
    args.bias = bias.data();
    args.x = in.values.data();
    args.y = out.values.data();
    args.stride = in.stride;
    args.token_end = x.shape(1);
    args.row_end = static_cast<uint32_t>(weight.shape(0));
    args.in_features = static_cast<uint32_t>(weight.shape(1));
    args.activation = activation_of(activation);
    kernels.dense(args);
    return out.take(bias.size(), x.shape(1));
}

// q, k, v are (head_size, all tokens); the sequence is [start, start + tokens) of them. Everything else of the result is `keep`.
Output test_attention(const std::string& isa, const Matrix& q, const Matrix& k, const Matrix& v, size_t start, size_t tokens,
                      float scale, bool causal, float keep) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    const Padded qs(q, NAN), ks(k, NAN), vs(v, NAN);
    Padded out(q.shape(0), q.shape(1), keep);
    std::vector<float> scratch(lavolta::attention_scratch(q.shape(0)), NAN);
    const size_t step = lavolta::query_share(tokens);
    for (size_t query = 0; query < tokens; query += step) {
        lavolta::AttentionArgs args{};
        args.q = qs.values.data() + start;
        args.k = ks.values.data() + start;
        args.v = vs.values.data() + start;
        args.out = out.values.data() + start;
        args.scratch = scratch.data();
        args.stride = qs.stride;
        args.tokens = tokens;
        args.query_begin = query;
        args.query_end = query + step < tokens ? query + step : tokens;
        args.head_size = static_cast<uint32_t>(q.shape(0));
        args.scale = scale;
        args.causal = causal;
        kernels.attention(args);
    }
    return out.take(q.shape(0), q.shape(1));
}

// q is (heads * head_size, tokens), k and v (head_size, past + tokens) of the one head that the others share.
Output test_cached_attention(const std::string& isa, const Matrix& q, const Matrix& k, const Matrix& v, float scale) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    const size_t size = k.shape(0), keys = k.shape(1), tokens = q.shape(1), pad = lavolta::kTokenPad;
    const Padded qs(q, NAN);
    Padded out(q.shape(0), tokens, NAN);
    lavolta::CachedAttentionArgs args{};
    args.value_stride = (size + pad - 1) / pad * pad;
    // What is behind the last key may be anything; what is behind the features of a value is zero.
    std::vector<float> ks((keys + pad - 1) / pad * pad * size, NAN), vs(keys * args.value_stride, 0.0f);
    for (size_t f = 0; f < size; ++f) {
        for (size_t t = 0; t < keys; ++t) {
            ks[(t / pad * size + f) * pad + t % pad] = k.data()[f * keys + t];
            vs[t * args.value_stride + f] = v.data()[f * keys + t];
        }
    }
    std::vector<float> scratch(lavolta::cached_attention_scratch(keys, size), NAN);
    args.q = qs.values.data();
    args.keys = ks.data();
    args.values = vs.data();
    args.out = out.values.data();
    args.scratch = scratch.data();
    args.stride = qs.stride;
    args.past = keys - tokens;
    args.heads = static_cast<uint32_t>(q.shape(0) / size);
    args.head_size = static_cast<uint32_t>(size);
    args.scale = scale;
    const size_t step = lavolta::query_share(keys);
    for (args.query_begin = 0; args.query_begin < tokens; args.query_begin = args.query_end) {
        args.query_end = args.query_begin + step < tokens ? args.query_begin + step : tokens;
        kernels.cached_attention(args);
    }
    return out.take(q.shape(0), tokens);
}

// Without bias it is the RMS norm.
Output test_norm(const std::string& isa, const Matrix& x, const Vector& weight, const std::optional<Vector>& bias, float eps) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Padded in(x, NAN);
    lavolta::NormArgs args{};
    args.x = in.values.data();
    args.weight = weight.data();
    args.bias = bias ? bias->data() : nullptr;
    args.rms = !bias;
    args.y = in.values.data();
    args.stride = in.stride;
    args.token_end = x.shape(1);
    args.features = static_cast<uint32_t>(x.shape(0));
    args.eps = eps;
    kernels.norm(args);
    return in.take(x.shape(0), x.shape(1));
}

Output test_gate(const std::string& isa, const Matrix& gate, const Matrix& values, const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Output out = make_output(values.shape(0), values.shape(1));
    std::memcpy(out.data(), values.data(), values.size() * sizeof(float));
    kernels.gate({gate.data(), out.data(), values.size(), activation_of(activation)});
    return out;
}

Output test_rotate(const std::string& isa, const Matrix& x, const Matrix& cos, const Matrix& sin) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    const Padded cosines(cos, NAN), sines(sin, NAN);
    Padded in(x, NAN);
    lavolta::RotateArgs args{};
    args.x = in.values.data();
    args.cos = cosines.values.data();
    args.sin = sines.values.data();
    args.stride = in.stride;
    args.token_end = x.shape(1);
    args.head_size = static_cast<uint32_t>(x.shape(0));
    kernels.rotate(args);
    return in.take(x.shape(0), x.shape(1));
}

// What a level streams: the sizes of every stretch, `(stretches, bands)`, and its first unit.
std::vector<lavolta::Stretch> stretches_of(const Sizes& sizes, const Counts& firsts) {
    std::vector<lavolta::Stretch> stretches;
    for (size_t s = 0; s < firsts.size(); ++s) stretches.push_back({sizes.data() + s * sizes.shape(1), firsts.data()[s]});
    return stretches;
}

// One level of a linear layer for one token; `scale` makes it an int8 layer, whose inputs are quantized here.
Output test_token_linear(const std::string& isa, const Matrix& values, const Columns& columns, const Sizes& sizes,
                         const Counts& firsts, const Vector& bias, const Vector& x, const std::optional<Vector>& residual,
                         const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Output out = make_output(1, bias.size());
    lavolta::TokenLinearArgs args{};
    args.values = values.data();
    args.columns = columns.data();
    const std::vector<lavolta::Stretch> stretches = stretches_of(sizes, firsts);
    args.stretches = stretches.data();
    args.stretch_count = stretches.size();
    args.bias = bias.data();
    args.x = x.data();
    args.residual = residual ? residual->data() : nullptr;
    args.y = out.data();
    args.cell_rows = static_cast<uint32_t>(values.shape(1));
    args.out_features = static_cast<uint32_t>(bias.size());
    args.activation = activation_of(activation);
    // Two calls, as threads divide the bands.
    const uint32_t bands = static_cast<uint32_t>(sizes.shape(1));
    for (const uint32_t half : {0u, 1u}) {
        args.band_begin = bands * half / 2;
        args.band_end = bands * (half + 1) / 2;
        kernels.token_linear(args);
    }
    return out;
}

Output test_token_linear_int8(const std::string& isa, const Quads& values, const Columns& columns, const Sizes& sizes,
                              const Counts& firsts, const Vector& scale, const Vector& bias,
                              const Vector& x, const std::optional<Vector>& residual, const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    std::vector<int8_t> q(x.size() + lavolta::kTokenSlack);
    float token_scale = NAN;
    kernels.token_quantize({x.data(), q.data(), &token_scale, static_cast<uint32_t>(x.size())});
    Output out = make_output(1, bias.size());
    lavolta::TokenLinearInt8Args args{};
    args.values = values.data();
    args.columns = columns.data();
    const std::vector<lavolta::Stretch> stretches = stretches_of(sizes, firsts);
    args.stretches = stretches.data();
    args.stretch_count = stretches.size();
    args.scale = scale.data();
    args.bias = bias.data();
    args.q = q.data();
    args.token_scale = &token_scale;
    args.residual = residual ? residual->data() : nullptr;
    args.y = out.data();
    args.band_end = static_cast<uint32_t>(sizes.shape(1));
    args.cell_rows = static_cast<uint32_t>(values.shape(1));
    args.out_features = static_cast<uint32_t>(bias.size());
    args.activation = activation_of(activation);
    kernels.token_linear_int8(args);
    return out;
}

Output test_token_dense(const std::string& isa, const Matrix& weight, const Vector& bias, const Vector& x,
                        const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Output out = make_output(1, bias.size());
    kernels.token_dense({weight.data(), bias.data(), x.data(), out.data(), 0, static_cast<uint32_t>(bias.size()),
                         static_cast<uint32_t>(x.size()), activation_of(activation)});
    return out;
}

Output test_token_norm(const std::string& isa, const Vector& x, const Vector& weight, const std::optional<Vector>& bias, float eps) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Output out = make_output(1, x.size());
    kernels.token_norm({x.data(), weight.data(), bias ? bias->data() : nullptr, out.data(), static_cast<uint32_t>(x.size()), eps,
                        !bias});
    return out;
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.def("linear", &test_linear, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("runs"), nb::arg("run_ptr"),
          nb::arg("bias"), nb::arg("x"), nb::arg("residual").none(), nb::arg("activation"));
    m.def("quantize", &test_quantize, nb::arg("isa"), nb::arg("x"));
    m.def("linear_int8", &test_linear_int8, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("runs"),
          nb::arg("run_ptr"), nb::arg("scale"), nb::arg("bias"), nb::arg("u"), nb::arg("token_scale"),
          nb::arg("residual").none(), nb::arg("activation"));
    m.def("dense", &test_dense, nb::arg("isa"), nb::arg("weight"), nb::arg("bias"), nb::arg("x"), nb::arg("activation"));
    m.def("attention", &test_attention, nb::arg("isa"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("start"),
          nb::arg("tokens"), nb::arg("scale"), nb::arg("causal"), nb::arg("keep"));
    m.def("cached_attention", &test_cached_attention, nb::arg("isa"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("scale"));
    m.def("norm", &test_norm, nb::arg("isa"), nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(),
          nb::arg("eps"));
    m.def("gate", &test_gate, nb::arg("isa"), nb::arg("gate"), nb::arg("values"), nb::arg("activation"));
    m.def("rotate", &test_rotate, nb::arg("isa"), nb::arg("x"), nb::arg("cos"), nb::arg("sin"));
    m.def("token_linear", &test_token_linear, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("sizes"),
          nb::arg("firsts"), nb::arg("bias"), nb::arg("x"), nb::arg("residual").none(), nb::arg("activation"));
    m.def("token_linear_int8", &test_token_linear_int8, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("sizes"),
          nb::arg("firsts"), nb::arg("scale"), nb::arg("bias"), nb::arg("x"), nb::arg("residual").none(),
          nb::arg("activation"));
    m.def("token_dense", &test_token_dense, nb::arg("isa"), nb::arg("weight"), nb::arg("bias"), nb::arg("x"),
          nb::arg("activation"));
    m.def("token_norm", &test_token_norm, nb::arg("isa"), nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(),
          nb::arg("eps"));
}
