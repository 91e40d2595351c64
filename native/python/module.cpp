// lavolta._native: the C interface for Python, and single kernels for the tests. Checks of values are in engine.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cpu.h"
#include "kernels.h"
#include "lavolta.h"

namespace nb = nanobind;

namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Pairs = nb::ndarray<const uint32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Columns = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Quads = nb::ndarray<const int8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Levels = nb::ndarray<uint32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::numpy, float, nb::ndim<2>, nb::c_contig>;

// (name of the status, sentence); engine.py turns it into the exception family.
[[noreturn]] void raise(lavolta_status status) {
    nb::object type = nb::module_::import_("lavolta._native").attr("NativeError");
    nb::object error = type(lavolta_status_name(status), lavolta_last_error());
    PyErr_SetObject(type.ptr(), error.ptr());
    throw nb::python_error();
}

void check(lavolta_status status) {
    if (status != LAVOLTA_OK) raise(status);
}

Output make_output(size_t rows, size_t columns) {
    float* pointer = new float[rows * columns + 1];
    nb::capsule owner(pointer, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Output(pointer, {rows, columns}, owner);
}

// A Python callable as the engine's clock. What it raises cannot pass the engine: it is kept, and raised after the call.
class PythonClock {
   public:
    explicit PythonClock(std::optional<nb::callable> read) : read_(std::move(read)) {}

    lavolta_clock function() const { return read_ ? &PythonClock::call : nullptr; }
    void finish() {
        if (failure_) throw nb::python_error(std::move(*failure_));
    }

   private:
    static uint64_t call(void* user) {
        auto* self = static_cast<PythonClock*>(user);
        nb::gil_scoped_acquire acquire;
        try {
            if (!self->failure_) self->last_ = nb::cast<uint64_t>((*self->read_)());
        } catch (nb::python_error& error) {
            self->failure_.emplace(std::move(error));
        } catch (const nb::cast_error&) {
            PyErr_SetString(PyExc_TypeError, "the clock must return nanoseconds, an integer of at least 0");
            self->failure_.emplace();
        }
        return self->last_;
    }

    std::optional<nb::callable> read_;
    std::optional<nb::python_error> failure_;
    uint64_t last_ = 0;
};

class NativeModel {
   public:
    NativeModel(const std::string& path, uint32_t threads, uint32_t spin_us, const std::string& isa,
                const std::vector<uint32_t>& cores) {
        lavolta_options options{};
        options.threads = threads;
        options.spin_us = spin_us;
        options.isa = isa.empty() ? nullptr : isa.c_str();
        options.cores = cores.data();
        options.core_count = cores.size();
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_open(path.c_str(), &options, &model_);
        }
        check(status);
    }
    ~NativeModel() { lavolta_close(model_); }
    NativeModel(const NativeModel&) = delete;
    NativeModel& operator=(const NativeModel&) = delete;

    std::string describe() const { return lavolta_describe(model_); }
    uint32_t level() const { return lavolta_level(model_); }
    uint32_t layer_count() const { return lavolta_layer_count(model_); }
    uint32_t level_count() const { return lavolta_level_count(model_); }

    int64_t switch_level(uint32_t level) {
        const auto start = std::chrono::steady_clock::now();
        const lavolta_status status = lavolta_switch(model_, level);
        const auto end = std::chrono::steady_clock::now();
        check(status);
        return std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count();
    }

    Output run(const Ints& token_ids, const std::optional<Ints>& type_ids, const Counts& lengths, bool per_token) {
        const lavolta_batch batch = batch_of(token_ids, type_ids, lengths, per_token);
        Output output = output_for(batch);
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_run(model_, &batch, output.data(), output.size());
        }
        check(status);
        return output;
    }

    // `levels` (sequences, layers) is written as the run proceeds.
    nb::tuple run_within(const Ints& token_ids, const std::optional<Ints>& type_ids, const Counts& lengths, bool per_token,
                         double deadline_ms, const Levels& levels, std::optional<nb::callable> clock) {
        const lavolta_batch batch = batch_of(token_ids, type_ids, lengths, per_token);
        if (levels.shape(0) != lengths.size() || levels.shape(1) != lavolta_layer_count(model_)) {
            throw nb::value_error("levels do not have the shape (sequences, layers)");
        }
        Output output = output_for(batch);
        PythonClock reader(std::move(clock));
        const lavolta_deadline deadline{deadline_ms, reader.function(), &reader};
        lavolta_timing timing{};
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_run_within(model_, &batch, &deadline, output.data(), output.size(), levels.data(), &timing);
        }
        reader.finish();
        check(status);
        return nb::make_tuple(output, timing.elapsed_ms, timing.met != 0);
    }

    void calibrate(const Counts& tokens, uint32_t repetitions, std::optional<nb::callable> clock) {
        PythonClock reader(std::move(clock));
        const lavolta_calibration options{tokens.data(), tokens.size(), repetitions, reader.function(), &reader};
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_calibrate(model_, &options);
        }
        reader.finish();
        check(status);
    }

    std::optional<std::string> plan() {
        char* text = lavolta_plan(model_);
        if (!text) return std::nullopt;
        std::string plan = text;
        lavolta_free(text);
        return plan;
    }

    void set_plan(const std::string& text) { check(lavolta_set_plan(model_, text.data(), text.size())); }

    void cancel() { check(lavolta_cancel(model_)); }

    lavolta_model* handle() const { return model_; }

    std::optional<nb::bytes> blob(const std::string& name) const {
        const uint8_t* data = nullptr;
        size_t bytes = 0;
        check(lavolta_blob(model_, name.c_str(), &data, &bytes));
        if (!data) return std::nullopt;
        return nb::bytes(data, bytes);
    }

    void profile(bool enabled) {
        nb::gil_scoped_release release;
        lavolta_profile(model_, enabled);
    }

    std::string explain() {
        char* text;
        {
            nb::gil_scoped_release release;
            text = lavolta_explain(model_);
        }
        if (!text) raise(LAVOLTA_INTERNAL);
        std::string rows = text;
        lavolta_free(text);
        return rows;
    }

   private:
    static lavolta_batch batch_of(const Ints& token_ids, const std::optional<Ints>& type_ids, const Counts& lengths,
                                  bool per_token) {
        uint64_t total = 0;
        for (size_t i = 0; i < lengths.size(); ++i) total += lengths.data()[i];
        if (total != token_ids.size() || (type_ids && type_ids->size() != total)) {
            throw nb::value_error("lengths do not add up to the ids");
        }
        return {token_ids.data(), type_ids ? type_ids->data() : nullptr, lengths.data(), lengths.size(), per_token};
    }

    Output output_for(const lavolta_batch& batch) const {
        size_t rows = 0, columns = 0;
        check(lavolta_output_shape(model_, &batch, &rows, &columns));
        return make_output(rows, columns);
    }

    lavolta_model* model_ = nullptr;
};

class NativeSession {
   public:
    NativeSession(const NativeModel& model, size_t max_tokens, size_t columns) : columns_(columns) {
        check(lavolta_session_open(model.handle(), max_tokens, &session_));
    }
    ~NativeSession() { lavolta_session_close(session_); }
    NativeSession(const NativeSession&) = delete;
    NativeSession& operator=(const NativeSession&) = delete;

    std::optional<Output> append(const Ints& token_ids, bool wants_logits) {
        std::optional<Output> logits;
        if (wants_logits) logits = make_output(1, columns_);
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_session_append(session_, token_ids.data(), token_ids.size(), logits ? logits->data() : nullptr, columns_);
        }
        check(status);
        return logits;
    }

    size_t length() const {
        size_t tokens = 0;
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_session_length(session_, &tokens);
        }
        check(status);
        return tokens;
    }

    void truncate(size_t tokens) {
        lavolta_status status;
        {
            nb::gil_scoped_release release;
            status = lavolta_session_truncate(session_, tokens);
        }
        check(status);
    }

   private:
    lavolta_session* session_ = nullptr;
    size_t columns_;
};

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
                        const Ints& row_sums, const Vector& scale, const Vector& bias, const Bytes& u, const Vector& token_scale,
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
    args.row_sums = row_sums.data();
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
    std::vector<float> scratch(lavolta::attention_scratch(tokens), NAN);
    for (size_t query = 0; query < tokens; query += lavolta::kQueryTile) {
        lavolta::AttentionArgs args{};
        args.q = qs.values.data() + start;
        args.k = ks.values.data() + start;
        args.v = vs.values.data() + start;
        args.out = out.values.data() + start;
        args.scratch = scratch.data();
        args.stride = qs.stride;
        args.tokens = tokens;
        args.query_begin = query;
        args.query_end = query + lavolta::kQueryTile < tokens ? query + lavolta::kQueryTile : tokens;
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
    for (args.query_begin = 0; args.query_begin < tokens; args.query_begin = args.query_end) {
        args.query_end = args.query_begin + lavolta::kQueryTile < tokens ? args.query_begin + lavolta::kQueryTile : tokens;
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

Output test_activation(const std::string& isa, const Matrix& x, const std::string& activation) {
    const lavolta::KernelSet kernels = kernels_of(isa);
    Output out = make_output(x.shape(0), x.shape(1));
    std::memcpy(out.data(), x.data(), x.size() * sizeof(float));
    kernels.activation({out.data(), x.size(), activation_of(activation)});
    return out;
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

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The native engine of La Volta; use lavolta.runtime.engine.";
    m.attr("NativeError") =
        nb::steal<nb::object>(PyErr_NewException("lavolta._native.NativeError", PyExc_RuntimeError, nullptr));
    nb::class_<NativeModel>(m, "NativeModel")
        .def(nb::init<const std::string&, uint32_t, uint32_t, const std::string&, const std::vector<uint32_t>&>(),
             nb::arg("path"), nb::arg("threads"), nb::arg("spin_us"), nb::arg("isa"), nb::arg("cores"))
        .def("describe", &NativeModel::describe)
        .def("level", &NativeModel::level)
        .def("layer_count", &NativeModel::layer_count)
        .def("level_count", &NativeModel::level_count)
        .def("switch", &NativeModel::switch_level, nb::arg("level"))
        .def("run", &NativeModel::run, nb::arg("token_ids"), nb::arg("type_ids").none(), nb::arg("lengths"),
             nb::arg("per_token"))
        .def("run_within", &NativeModel::run_within, nb::arg("token_ids"), nb::arg("type_ids").none(), nb::arg("lengths"),
             nb::arg("per_token"), nb::arg("deadline_ms"), nb::arg("levels"), nb::arg("clock").none())
        .def("calibrate", &NativeModel::calibrate, nb::arg("tokens"), nb::arg("repetitions"), nb::arg("clock").none())
        .def("plan", &NativeModel::plan)
        .def("set_plan", &NativeModel::set_plan, nb::arg("text"))
        .def("cancel", &NativeModel::cancel)
        .def("blob", &NativeModel::blob, nb::arg("name"))
        .def("profile", &NativeModel::profile, nb::arg("enabled"))
        .def("explain", &NativeModel::explain);
    m.def(
        "peak",
        [](const std::string& isa) {
            double gflops = 0.0;
            lavolta_status status;
            {
                nb::gil_scoped_release release;
                status = lavolta_peak(isa.empty() ? nullptr : isa.c_str(), &gflops);
            }
            check(status);
            return gflops;
        },
        nb::arg("isa"));
    nb::class_<NativeSession>(m, "NativeSession")
        .def(nb::init<const NativeModel&, size_t, size_t>(), nb::arg("model"), nb::arg("max_tokens"), nb::arg("columns"))
        .def("append", &NativeSession::append, nb::arg("token_ids"), nb::arg("wants_logits"))
        .def("length", &NativeSession::length)
        .def("truncate", &NativeSession::truncate, nb::arg("tokens"));
    m.def(
        "cores",
        [](const std::string& folder, uint32_t threads) {
            char* text = lavolta_cores(folder.c_str(), threads);
            if (!text) raise(LAVOLTA_OUT_OF_MEMORY);
            std::string cores = text;
            lavolta_free(text);
            return cores;
        },
        nb::arg("folder"), nb::arg("threads"));
    m.def("isas", [] { return std::string(lavolta_isas()); });
    m.def("linear", &test_linear, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("runs"), nb::arg("run_ptr"),
          nb::arg("bias"), nb::arg("x"), nb::arg("residual").none(), nb::arg("activation"));
    m.def("quantize", &test_quantize, nb::arg("isa"), nb::arg("x"));
    m.def("linear_int8", &test_linear_int8, nb::arg("isa"), nb::arg("values"), nb::arg("columns"), nb::arg("runs"),
          nb::arg("run_ptr"), nb::arg("row_sums"), nb::arg("scale"), nb::arg("bias"), nb::arg("u"), nb::arg("token_scale"),
          nb::arg("residual").none(), nb::arg("activation"));
    m.def("dense", &test_dense, nb::arg("isa"), nb::arg("weight"), nb::arg("bias"), nb::arg("x"), nb::arg("activation"));
    m.def("attention", &test_attention, nb::arg("isa"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("start"),
          nb::arg("tokens"), nb::arg("scale"), nb::arg("causal"), nb::arg("keep"));
    m.def("cached_attention", &test_cached_attention, nb::arg("isa"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("scale"));
    m.def("norm", &test_norm, nb::arg("isa"), nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(),
          nb::arg("eps"));
    m.def("activation", &test_activation, nb::arg("isa"), nb::arg("x"), nb::arg("activation"));
    m.def("gate", &test_gate, nb::arg("isa"), nb::arg("gate"), nb::arg("values"), nb::arg("activation"));
    m.def("rotate", &test_rotate, nb::arg("isa"), nb::arg("x"), nb::arg("cos"), nb::arg("sin"));
}
