#include "bundle.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "error.h"
#include "json.h"

namespace lavolta {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint32_t kMaxLevels = 64;
constexpr int64_t kFormat = 4;

enum class Dtype : uint8_t { u64, f32, u16, i8, u8, other };

struct Tensor {
    Dtype dtype;
    std::vector<uint64_t> shape;
    uint64_t begin, end;  // bytes, from the start of the data
};

size_t item_bytes(Dtype dtype) {
    switch (dtype) {
        case Dtype::u64:
            return 8;
        case Dtype::f32:
            return 4;
        case Dtype::u16:
            return 2;
        default:
            return 1;
    }
}

const char* dtype_name(Dtype dtype) {
    static const char* const names[] = {"U64", "F32", "U16", "I8", "U8", "another type"};
    return names[static_cast<int>(dtype)];
}

std::string shape_text(const std::vector<uint64_t>& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

// Bits per item of every safetensors dtype; the engine reads those of `dtype_of`, the others only have to fit.
uint64_t dtype_bits(std::string_view name) {
    static const std::pair<std::string_view, uint64_t> known[] = {
        {"BOOL", 8}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16},
        {"F16", 16}, {"BF16", 16}, {"I32", 32}, {"U32", 32},    {"F32", 32},    {"I64", 64},    {"U64", 64}, {"F64", 64},
    };
    for (const auto& entry : known) {
        if (entry.first == name) return entry.second;
    }
    return 0;
}

Dtype dtype_of(std::string_view name) {
    if (name == "U64") return Dtype::u64;
    if (name == "F32") return Dtype::f32;
    if (name == "U16") return Dtype::u16;
    if (name == "I8") return Dtype::i8;
    if (name == "U8") return Dtype::u8;
    return Dtype::other;
}

bool read_count(const Json& value, uint64_t& out) {
    if (!value.is(Json::Type::integer) || value.integer < 0) return false;
    out = static_cast<uint64_t>(value.integer);
    return true;
}

}  // namespace

class BundleReader {
   public:
    BundleReader(const uint8_t* data, size_t bytes, Bundle& out) : data_(data), bytes_(bytes), out_(out) {}

    void read() {
        read_header();
        read_manifest();
        read_tensors();
    }

   private:
    const uint8_t* data_;
    size_t bytes_;
    Bundle& out_;
    const uint8_t* payload_ = nullptr;
    std::map<std::string, Tensor, std::less<>> tensors_;
    Json manifest_;
    const std::vector<Json>* listed_ = nullptr;  // the manifest's linears
    size_t read_linears_ = 0;

    void read_header() {
        if (bytes_ < 8) fail(LAVOLTA_TRUNCATED, "the bundle has " + std::to_string(bytes_) + " bytes, fewer than its first field.");
        uint64_t length = 0;
        for (int i = 7; i >= 0; --i) length = length << 8 | data_[i];
        if (length > kMaxHeaderBytes) {
            fail(LAVOLTA_HEADER_TOO_LARGE, "the header claims " + std::to_string(length) + " bytes; the limit is " +
                                               std::to_string(kMaxHeaderBytes) + ": this is not a bundle, or it is broken.");
        }
        if (length > bytes_ - 8) {
            fail(LAVOLTA_TRUNCATED, "the header claims " + std::to_string(length) + " bytes, the file ends after " +
                                        std::to_string(bytes_ - 8) + "; copy the bundle again.");
        }
        if (length == 0 || data_[8] != '{') fail(LAVOLTA_NOT_A_BUNDLE, "the header does not start with '{'; this is not a bundle.");
        Json header;
        try {
            header = parse_json({reinterpret_cast<const char*>(data_) + 8, static_cast<size_t>(length)});
        } catch (const JsonError& error) {
            fail(LAVOLTA_HEADER_NOT_JSON, std::string("the header is not JSON: ") + error.what + " at byte " +
                                              std::to_string(error.offset) + ".");
        }
        payload_ = data_ + 8 + length;
        read_entries(header, bytes_ - 8 - length);
        const Json* metadata = header.find("__metadata__");
        const Json* text = metadata ? metadata->find("lavolta") : nullptr;
        if (!text) fail(LAVOLTA_MANIFEST_MISSING, "the file has no 'lavolta' metadata; it is not a La Volta bundle.");
        if (!text->is(Json::Type::string)) fail(LAVOLTA_MANIFEST_INVALID, "the 'lavolta' metadata is not a string.");
        out_.manifest = text->string;
    }

    void read_entries(const Json& header, uint64_t payload_bytes) {
        std::vector<std::pair<uint64_t, uint64_t>> spans;
        for (const auto& [name, entry] : header.members) {
            if (name == "__metadata__") continue;
            Tensor tensor = read_entry(name, entry);
            spans.emplace_back(tensor.begin, tensor.end);
            tensors_.emplace(name, std::move(tensor));
        }
        std::sort(spans.begin(), spans.end());
        uint64_t covered = 0;
        for (const auto& [begin, end] : spans) {
            if (begin != covered) fail(LAVOLTA_OFFSETS_INVALID, "tensors overlap or leave a hole at byte " + std::to_string(covered) + ".");
            covered = end;
        }
        if (covered > payload_bytes) {
            fail(LAVOLTA_TRUNCATED, "the tensors need " + std::to_string(covered) + " bytes, the file has " +
                                        std::to_string(payload_bytes) + "; copy the bundle again.");
        }
        if (covered < payload_bytes) fail(LAVOLTA_OFFSETS_INVALID, "the file has bytes after its last tensor.");
    }

    static Tensor read_entry(const std::string& name, const Json& entry) {
        const Json* dtype = entry.find("dtype");
        const Json* shape = entry.find("shape");
        const Json* offsets = entry.find("data_offsets");
        if (!dtype || !dtype->is(Json::Type::string) || !shape || !shape->is(Json::Type::array) || !offsets ||
            !offsets->is(Json::Type::array) || offsets->items.size() != 2) {
            fail(LAVOLTA_HEADER_NOT_JSON, "the header's entry of '" + name + "' is not a tensor.");
        }
        Tensor tensor{dtype_of(dtype->string), {}, 0, 0};
        if (!read_count(offsets->items[0], tensor.begin) || !read_count(offsets->items[1], tensor.end) ||
            tensor.begin > tensor.end) {
            fail(LAVOLTA_OFFSETS_INVALID, "the offsets of '" + name + "' are not a range.");
        }
        uint64_t bits = dtype_bits(dtype->string);
        if (bits == 0) fail(LAVOLTA_TENSOR_DTYPE, "'" + name + "' has the unknown type '" + dtype->string + "'.");
        for (const Json& item : shape->items) {
            uint64_t size = 0;
            if (!read_count(item, size)) fail(LAVOLTA_TENSOR_SHAPE, "the shape of '" + name + "' is not a list of sizes.");
            if (size != 0 && bits > UINT64_MAX / size) fail(LAVOLTA_TENSOR_SHAPE, "the shape of '" + name + "' overflows.");
            bits *= size;
            tensor.shape.push_back(size);
        }
        if (bits / 8 != tensor.end - tensor.begin) {
            fail(LAVOLTA_OFFSETS_INVALID, "'" + name + "' of shape " + shape_text(tensor.shape) + " does not fill its " +
                                              std::to_string(tensor.end - tensor.begin) + " bytes.");
        }
        return tensor;
    }

    [[noreturn]] static void invalid(const std::string& what) {
        fail(LAVOLTA_MANIFEST_INVALID, "the manifest is invalid: " + what + ".");
    }

    static const Json& member(const Json& object, const char* name, Json::Type type) {
        const Json* value = object.find(name);
        if (!value) invalid(std::string("'") + name + "' is missing");
        if (!value->is(type)) invalid(std::string("'") + name + "' has the wrong type");
        return *value;
    }

    static uint32_t count(const Json& object, const char* name, uint32_t least, uint32_t most) {
        const int64_t value = member(object, name, Json::Type::integer).integer;
        if (value < least || value > most) {
            invalid(std::string("'") + name + "' is " + std::to_string(value) + ", not " + std::to_string(least) + " to " +
                    std::to_string(most));
        }
        return static_cast<uint32_t>(value);
    }

    static bool flag(const Json& object, const char* name) { return member(object, name, Json::Type::boolean).boolean; }

    // The index of the member's text in `allowed`.
    template <size_t N>
    static size_t choice(const Json& object, const char* name, const char* const (&allowed)[N]) {
        const std::string& text = member(object, name, Json::Type::string).string;
        for (size_t i = 0; i < N; ++i) {
            if (text == allowed[i]) return i;
        }
        invalid(std::string("'") + name + "' is '" + text + "'");
    }

    void read_manifest() {
        try {
            manifest_ = parse_json(out_.manifest);
        } catch (const JsonError& error) {
            fail(LAVOLTA_MANIFEST_INVALID, std::string("the manifest is not JSON: ") + error.what + " at byte " +
                                               std::to_string(error.offset) + ".");
        }
        if (!manifest_.is(Json::Type::object)) invalid("it is not an object");
        const int64_t format = member(manifest_, "format", Json::Type::integer).integer;
        if (format != kFormat) {
            const std::string way_out = format < kFormat ? "an older version made it, make the bundle again." : "update lavolta.";
            fail(LAVOLTA_VERSION_UNSUPPORTED, "the bundle has format " + std::to_string(format) + ", this engine reads format " +
                                                  std::to_string(kFormat) + "; " + way_out);
        }
        member(manifest_, "lavolta_version", Json::Type::string);
        member(manifest_, "provenance", Json::Type::object);
        member(manifest_, "device", Json::Type::object);
        out_.cell_rows = count(manifest_, "cell_rows", 1, 16);
        if (out_.cell_rows & (out_.cell_rows - 1)) invalid("'cell_rows' is not 1, 2, 4, 8 or 16");
        read_spec(member(manifest_, "model", Json::Type::object));
        listed_ = &member(manifest_, "linears", Json::Type::array).items;
        const Json& levels = member(manifest_, "levels", Json::Type::array);
        if (levels.items.empty() || levels.items.size() > kMaxLevels) invalid("it must have 1 to 64 levels");
        for (const Json& level : levels.items) {
            out_.levels.push_back(member(level, "name", Json::Type::string).string);
            if (std::count(out_.levels.begin(), out_.levels.end(), out_.levels.back()) > 1) invalid("two levels share a name");
        }
    }

    void read_spec(const Json& model) {
        static const char* const activations[] = {"gelu", "gelu_tanh", "relu", "silu"};
        constexpr Activation activation_kinds[] = {Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::silu};
        static const char* const norms[] = {"layer", "rms"};
        static const char* const positions[] = {"learned", "rope"};
        static const char* const poolings[] = {"mean", "cls", "none"};
        static const char* const head_activations[] = {"gelu", "relu", "tanh"};
        constexpr uint32_t most_features = 1u << 16;
        constexpr uint32_t most_rows = 1u << 30;
        member(model, "name", Json::Type::string);
        Spec& spec = out_.spec;
        spec.layers = count(model, "layers", 1, 1u << 12);
        spec.hidden = count(model, "hidden", 1, most_features);
        spec.heads = count(model, "heads", 1, most_features);
        spec.kv_heads = count(model, "kv_heads", 1, most_features);
        spec.ffn = count(model, "ffn", 1, most_features);
        spec.vocab = count(model, "vocab", 1, most_rows);
        spec.max_tokens = count(model, "max_tokens", 1, 1u << 20);
        spec.types = count(model, "types", 0, 2);
        spec.outputs = count(model, "outputs", 0, most_rows);
        if (spec.hidden % spec.heads) invalid("'hidden' is not a multiple of 'heads'");
        if (spec.heads % spec.kv_heads) invalid("'kv_heads' does not divide 'heads'");
        spec.norm = static_cast<NormKind>(choice(model, "norm", norms));
        spec.norm_first = flag(model, "norm_first");
        spec.position = static_cast<Position>(choice(model, "position", positions));
        if (spec.position == Position::rope && spec.head_size() % 2) invalid("rope needs heads of an even number of features");
        spec.ffn_gate = flag(model, "ffn_gate");
        spec.activation = activation_kinds[choice(model, "activation", activations)];
        spec.pooling = static_cast<Pooling>(choice(model, "pooling", poolings));
        spec.causal = flag(model, "causal");
        spec.embedding_norm = flag(model, "embedding_norm");
        spec.normalize = flag(model, "normalize");
        const Json* eps = model.find("norm_eps");
        if (!eps || !(eps->is(Json::Type::number) || eps->is(Json::Type::integer)) || !(eps->number >= 0.0 && eps->number < 1.0)) {
            invalid("'norm_eps' is not a number from 0 to 1");
        }
        spec.norm_eps = static_cast<float>(eps->number);
        const Json* head = model.find("head_dense");
        if (!head) invalid("'head_dense' is missing");
        spec.has_head_dense = !head->is(Json::Type::null);
        if (spec.has_head_dense) {
            constexpr Activation kinds[] = {Activation::gelu, Activation::relu, Activation::tanh};
            spec.head_dense = kinds[choice(model, "head_dense", head_activations)];
        }
    }

    // The data of a tensor after its type and shape were checked; aligned for its type.
    const uint8_t* take(const std::string& name, Dtype dtype, const std::vector<uint64_t>& shape) {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) fail(LAVOLTA_TENSOR_MISSING, "the bundle has no tensor '" + name + "'.");
        const Tensor& tensor = found->second;
        if (tensor.dtype != dtype) {
            fail(LAVOLTA_TENSOR_DTYPE, "'" + name + "' is " + dtype_name(tensor.dtype) + ", not " + dtype_name(dtype) + ".");
        }
        if (tensor.shape != shape) {
            fail(LAVOLTA_TENSOR_SHAPE, "'" + name + "' has shape " + shape_text(tensor.shape) + ", not " + shape_text(shape) + ".");
        }
        const uint8_t* at = payload_ + tensor.begin;
        if (reinterpret_cast<uintptr_t>(at) % item_bytes(dtype) == 0) return at;
        const size_t bytes = static_cast<size_t>(tensor.end - tensor.begin);
        out_.copies_.push_back(std::make_unique<uint8_t[]>(bytes));
        std::memcpy(out_.copies_.back().get(), at, bytes);
        return out_.copies_.back().get();
    }

    // A size, by default the first, of a tensor whose length is its own business.
    uint64_t length_of(const std::string& name, size_t place = 0) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) fail(LAVOLTA_TENSOR_MISSING, "the bundle has no tensor '" + name + "'.");
        if (found->second.shape.size() <= place) {
            fail(LAVOLTA_TENSOR_SHAPE, "'" + name + "' has shape " + shape_text(found->second.shape) + ", too few sizes.");
        }
        return found->second.shape[place];
    }

    const float* floats(const std::string& name, const std::vector<uint64_t>& shape) {
        const uint8_t* data = take(name, Dtype::f32, shape);
        uint64_t size = 1;
        for (const uint64_t s : shape) size *= s;
        // Without a branch, so that the compiler vectorizes it: all exponent bits set is NaN or infinity.
        uint32_t bad = 0;
        for (uint64_t i = 0; i < size; ++i) {
            uint32_t bits;
            std::memcpy(&bits, data + 4 * i, 4);
            bad |= (bits & 0x7F800000u) == 0x7F800000u ? 1u : 0u;
        }
        if (bad) {
            fail(LAVOLTA_NOT_FINITE, "'" + name + "' contains NaN or infinity; repair the model and write the bundle again.");
        }
        return reinterpret_cast<const float*>(data);
    }

    Norm norm(const std::string& name) {
        const uint64_t hidden = out_.spec.hidden;
        return {floats(name + ".weight", {hidden}),
                out_.spec.norm == NormKind::rms ? nullptr : floats(name + ".bias", {hidden})};
    }

    Linear linear(const std::string& name, uint32_t out_features, uint32_t in_features) {
        Linear linear{};
        linear.precision = check_listed(name, out_features, in_features);
        const std::string prefix = "linear." + name + ".";
        const uint64_t rows = out_.cell_rows;
        linear.name = name;
        linear.out_features = out_features;
        linear.in_features = in_features;
        linear.cell_rows = out_.cell_rows;
        linear.bands = (out_features + out_.cell_rows - 1) / out_.cell_rows;
        const uint64_t cells = length_of(prefix + "columns");
        if (cells % linear.cells_per_unit()) fail(LAVOLTA_TENSOR_SHAPE, "'" + prefix + "columns' does not fill whole quads.");
        linear.units = cells / linear.cells_per_unit();
        linear.columns = reinterpret_cast<const uint16_t*>(take(prefix + "columns", Dtype::u16, {cells}));
        read_groups(linear, prefix);
        linear.bias = floats(prefix + "bias", {out_features});
        if (linear.precision == Precision::fp32) {
            linear.values = floats(prefix + "values", {cells, rows});
        } else {
            linear.values_int8 = reinterpret_cast<const int8_t*>(take(prefix + "values", Dtype::i8, {linear.units, rows, kQuad}));
            linear.scale = floats(prefix + "scale", {out_features});
        }
        linear.check(static_cast<uint32_t>(out_.levels.size()));
        return linear;
    }

    // What levels keep.
    void read_groups(Linear& linear, const std::string& prefix) {
        const uint64_t groups = length_of(prefix + "kept_by"), blocks = length_of(prefix + "sizes", 1);
        if (groups > kMostGroups || blocks == 0 || blocks > kMostBlocks) {
            fail(LAVOLTA_TENSOR_SHAPE, "'" + prefix + "sizes' has " + std::to_string(groups) + " groups of " + std::to_string(blocks) +
                                           " blocks; at most " + std::to_string(kMostGroups) + " groups of 1 to " +
                                           std::to_string(kMostBlocks) + " are possible.");
        }
        linear.groups = static_cast<uint32_t>(groups);
        linear.blocks = static_cast<uint32_t>(blocks);
        linear.kept_by = reinterpret_cast<const uint64_t*>(take(prefix + "kept_by", Dtype::u64, {groups}));
        linear.sizes = reinterpret_cast<const uint16_t*>(take(prefix + "sizes", Dtype::u16, {groups, blocks, linear.bands}));
    }

    // The next entry of the manifest's list of linears says the same as the model's dimensions. Returns what only it says.
    Precision check_listed(const std::string& name, uint32_t out_features, uint32_t in_features) {
        if (read_linears_ == listed_->size()) invalid("'linears' does not list '" + name + "'");
        const Json& entry = (*listed_)[read_linears_++];
        const std::string& listed = member(entry, "name", Json::Type::string).string;
        if (listed != name) invalid("'linears' lists '" + listed + "' where '" + name + "' belongs");
        if (member(entry, "out_features", Json::Type::integer).integer != out_features ||
            member(entry, "in_features", Json::Type::integer).integer != in_features) {
            invalid("the shape of '" + name + "' in 'linears' does not fit the model");
        }
        static const char* const precisions[] = {"fp32", "int8"};
        return static_cast<Precision>(choice(entry, "precision", precisions));
    }

    void read_tensors() {
        const Spec& spec = out_.spec;
        const uint64_t hidden = spec.hidden;
        out_.word = floats("embeddings.word", {spec.vocab, hidden});
        if (spec.position == Position::rope) {
            out_.inv_freq = floats("rope.inv_freq", {spec.head_size() / 2});
        } else {
            out_.position = floats("embeddings.position", {spec.max_tokens, hidden});
        }
        if (spec.types) out_.type = floats("embeddings.type", {spec.types, hidden});
        if (spec.embedding_norm) out_.embedding_norm = norm("embeddings.norm");
        for (uint32_t i = 0; i < spec.layers; ++i) {
            const std::string layer = "layers." + std::to_string(i) + ".";
            Layer out;
            out.query = linear(layer + "attention.query", spec.hidden, spec.hidden);
            out.key = linear(layer + "attention.key", spec.key_features(), spec.hidden);
            out.value = linear(layer + "attention.value", spec.key_features(), spec.hidden);
            out.output = linear(layer + "attention.output", spec.hidden, spec.hidden);
            out.up = linear(layer + "ffn.up", spec.ffn, spec.hidden);
            if (spec.ffn_gate) out.gate = linear(layer + "ffn.gate", spec.ffn, spec.hidden);
            out.down = linear(layer + "ffn.down", spec.hidden, spec.ffn);
            out.attention_norm = norm(layer + "attention_norm");
            out.ffn_norm = norm(layer + "ffn_norm");
            out_.layers.push_back(std::move(out));
        }
        if (spec.norm_first) out_.final_norm = norm("final_norm");
        if (spec.has_head_dense) {
            out_.head_dense_weight = floats("head.dense.weight", {hidden, hidden});
            out_.head_dense_bias = floats("head.dense.bias", {hidden});
        }
        if (spec.outputs && read_linears_ < listed_->size()) {
            out_.head_out = linear("head.out", spec.outputs, spec.hidden);
        } else if (spec.outputs) {
            out_.head_out_weight = floats("head.out.weight", {spec.outputs, hidden});
            out_.head_out_bias = floats("head.out.bias", {spec.outputs});
        }
        if (read_linears_ < listed_->size()) invalid("'linears' lists more than the model has");
        out_.tokenizer = blob("tokenizer");
        out_.vocab = blob("vocab");
        if (tensors_.find("vocab") != tensors_.end()) check_vocab();
    }

    // Readers look words up by token.
    void check_vocab() const {
        const std::string_view text{reinterpret_cast<const char*>(out_.vocab.data), out_.vocab.bytes};
        const auto words = static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
        if (words != out_.spec.vocab) {
            fail(LAVOLTA_TENSOR_SHAPE, "'vocab' has " + std::to_string(words) + " words, not " + std::to_string(out_.spec.vocab) +
                                           "; write the bundle again.");
        }
        for (size_t at = 0; at < text.size();) {
            const size_t length = utf8_length(text, at);
            if (length == 0) invalid("'vocab' is not UTF-8 at byte " + std::to_string(at));
            at += length;
        }
    }

    Blob blob(const std::string& name) {
        if (tensors_.find(name) == tensors_.end()) return {};
        const uint64_t bytes = length_of(name);
        return {take(name, Dtype::u8, {bytes}), static_cast<size_t>(bytes)};
    }
};

Bundle::Bundle(const uint8_t* data, size_t bytes) { BundleReader(data, bytes, *this).read(); }

MappedFile::MappedFile(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(LAVOLTA_IO, "cannot open '" + path + "': " + std::strerror(errno) + ".");
    struct stat status {};
    if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(file);
        fail(LAVOLTA_IO, "'" + path + "' is not a file.");
    }
    bytes_ = static_cast<size_t>(status.st_size);
    if (bytes_ > 0) {
        void* mapped = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped == MAP_FAILED) {
            const int reason = errno;
            ::close(file);
            fail(LAVOLTA_IO, "cannot map '" + path + "': " + std::strerror(reason) + ".");
        }
        data_ = static_cast<const uint8_t*>(mapped);
    }
    ::close(file);
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<uint8_t*>(data_), bytes_);
}

}  // namespace lavolta
