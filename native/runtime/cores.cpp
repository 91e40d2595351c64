#include "cores.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#if defined(__linux__)
#include <sched.h>
#endif

#include "error.h"

namespace lavolta {
namespace {

// Share of the best speed that a run's cores must have at worst.
constexpr double kEnough = 0.9;
constexpr uint32_t kMostCores = 4096;

std::string read_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// A number that a file holds alone; 0 where it does not.
uint64_t read_number(const std::string& path) {
    const std::string line = read_line(path);
    if (line.empty() || line.size() > 18 || line.find_first_not_of("0123456789") != std::string::npos) return 0;
    return std::strtoull(line.c_str(), nullptr, 10);
}

// "0-3,6" or "0 1 2"; stops at what is no number.
std::vector<uint32_t> parse_list(const std::string& text) {
    std::vector<uint32_t> list;
    const char* at = text.c_str();
    while (*at >= '0' && *at <= '9') {
        char* end;
        const unsigned long first = std::strtoul(at, &end, 10);
        unsigned long last = first;
        if (*end == '-') last = std::strtoul(end + 1, &end, 10);
        for (unsigned long core = first; core <= last && core < kMostCores; ++core) list.push_back(static_cast<uint32_t>(core));
        at = end;
        while (*at == ',' || *at == ' ') ++at;
    }
    return list;
}

std::string text_of(const std::vector<uint32_t>& list) {
    std::string text;
    for (const uint32_t core : list) text += (text.empty() ? "" : ", ") + std::to_string(core);
    return text;
}

#if defined(__linux__)
// A set of any size; the fixed cpu_set_t ends at 1024 cores.
class CoreSet {
   public:
    CoreSet() : bytes_(CPU_ALLOC_SIZE(kMostCores)), set_(CPU_ALLOC(kMostCores)) {
        if (!set_) throw std::bad_alloc();
        CPU_ZERO_S(bytes_, set_);
    }
    ~CoreSet() { CPU_FREE(set_); }
    CoreSet(const CoreSet&) = delete;
    CoreSet& operator=(const CoreSet&) = delete;

    void add(uint32_t core) { CPU_SET_S(core, bytes_, set_); }
    bool has(uint32_t core) const { return CPU_ISSET_S(core, bytes_, set_); }
    bool read() { return sched_getaffinity(0, bytes_, set_) == 0; }
    bool apply() const { return sched_setaffinity(0, bytes_, set_) == 0; }

   private:
    size_t bytes_;
    cpu_set_t* set_;
};
#endif

}  // namespace

std::vector<Core> read_cores(const std::string& folder) {
    std::vector<Core> cores;
    for (const uint32_t index : parse_list(read_line(folder + "/online"))) {
        const std::string core = folder + "/cpu" + std::to_string(index);
        std::vector<uint32_t> together;
        for (const char* file : {"/topology/cluster_cpus_list", "/cpufreq/related_cpus", "/topology/core_siblings_list"}) {
            if (together.empty()) together = parse_list(read_line(core + file));
        }
        cores.push_back({index, read_number(core + "/cpu_capacity"), read_number(core + "/cpufreq/cpuinfo_max_freq"),
                         together.empty() ? index : *std::min_element(together.begin(), together.end())});
    }
    return cores;
}

std::vector<uint32_t> fast_cores(const std::vector<Core>& cores, size_t threads) {
    // The capacity counts what a core does in a cycle too; the clock alone is the next best, and only where all have one.
    const auto all = [&](uint64_t Core::*speed) {
        return std::all_of(cores.begin(), cores.end(), [&](const Core& core) { return core.*speed > 0; });
    };
    uint64_t Core::*const speed = all(&Core::capacity) ? &Core::capacity : &Core::max_khz;
    std::vector<Core> ranked = cores;
    if (all(speed) && !cores.empty()) {
        std::stable_sort(ranked.begin(), ranked.end(), [&](const Core& a, const Core& b) { return a.*speed > b.*speed; });
        const size_t busy = std::min(std::max<size_t>(threads, 1), ranked.size());
        // Of the first `size` cores the system may choose any: at worst the last ones.
        const auto worst = [&](size_t size) {
            double sum = 0.0;
            for (size_t i = size - busy; i < size; ++i) sum += static_cast<double>(ranked[i].*speed);
            return sum;
        };
        size_t size = busy;
        while (size < ranked.size() && worst(size + 1) >= kEnough * worst(busy)) ++size;
        ranked.resize(size);
    }
    std::vector<uint32_t> indices;
    for (const Core& core : ranked) indices.push_back(core.index);
    return indices;
}

std::string describe_cores(const std::string& folder, size_t threads) {
    const auto known = [](uint64_t value) { return value ? std::to_string(value) : "null"; };
    const std::vector<Core> cores = read_cores(folder);
    std::string text;
    for (const Core& core : cores) {
        text += (text.empty() ? "{\"core\": " : ", {\"core\": ") + std::to_string(core.index) + ", \"capacity\": " +
                known(core.capacity) + ", \"max_khz\": " + known(core.max_khz) + ", \"cluster\": " +
                std::to_string(core.cluster) + "}";
    }
    return "{\"cores\": [" + text + "], \"fast\": [" + text_of(fast_cores(cores, threads)) + "]}";
}

std::vector<uint32_t> allowed_cores() {
    std::vector<uint32_t> cores;
#if defined(__linux__)
    CoreSet set;
    if (!set.read()) return cores;
    for (uint32_t core = 0; core < kMostCores; ++core) {
        if (set.has(core)) cores.push_back(core);
    }
#endif
    return cores;
}

bool stay_on(const std::vector<uint32_t>& cores) {
#if defined(__linux__)
    CoreSet set;
    for (const uint32_t core : cores) set.add(core);
    return set.apply();
#else
    (void)cores;
    return false;
#endif
}

void check_cores(const std::vector<uint32_t>& cores) {
    if (cores.empty()) return;
    const std::vector<uint32_t> before = allowed_cores();
    if (before.empty()) fail(LAVOLTA_INVALID_ARGUMENT, "this system cannot keep threads on cores; leave cores out.");
    for (size_t i = 0; i < cores.size(); ++i) {
        const std::string name = std::to_string(cores[i]);
        if (cores[i] >= kMostCores) {
            fail(LAVOLTA_INVALID_ARGUMENT,
                 "cores has " + name + "; a core is a number from 0 to " + std::to_string(kMostCores - 1) + ".");
        }
        if (std::find(cores.begin(), cores.begin() + static_cast<ptrdiff_t>(i), cores[i]) !=
            cores.begin() + static_cast<ptrdiff_t>(i)) {
            fail(LAVOLTA_INVALID_ARGUMENT, "cores has " + name + " twice; name each core once.");
        }
        // A thread may have been kept to fewer cores than its process: only trying tells.
        const bool usable = stay_on({cores[i]});
        stay_on(before);
        if (!usable) {
            fail(LAVOLTA_INVALID_ARGUMENT,
                 "cores has " + name + ", which this process cannot use; choose among " + text_of(before) + ".");
        }
    }
}

std::vector<uint32_t> choose_cores(const std::vector<uint32_t>& wanted, size_t threads) {
    check_cores(wanted);
    if (!wanted.empty()) return wanted;
    std::vector<Core> cores = read_cores(kCoreFolder);
    const std::vector<uint32_t> allowed = allowed_cores();
    cores.erase(std::remove_if(cores.begin(), cores.end(),
                               [&](const Core& core) {
                                   return std::find(allowed.begin(), allowed.end(), core.index) == allowed.end();
                               }),
                cores.end());
    std::vector<uint32_t> fast = fast_cores(cores, threads);
    if (fast.size() == cores.size()) fast.clear();
    return fast;
}

CoreGuard::CoreGuard(const std::vector<uint32_t>& cores) {
    if (cores.empty()) return;
    before_ = allowed_cores();
    // Cores that went away since they were chosen: the run goes on wherever it is.
    if (before_.empty() || !stay_on(cores)) before_.clear();
}

CoreGuard::~CoreGuard() {
    if (!before_.empty()) stay_on(before_);
}

}  // namespace lavolta
