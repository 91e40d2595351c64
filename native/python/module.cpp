// lavolta._native: the C interface for Python. Checks of values are in engine.py.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "lavolta.h"

namespace {

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
    ~NativeModel() {
        // It waits for a session's call in another thread.
        nb::gil_scoped_release release;
        lavolta_close(model_);
    }
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
    bind_kernels(m);
}
