// The cores of this computer: which are fast, and threads that stay on some of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lavolta {

struct Core {
    uint32_t index;
    uint64_t capacity;  // relative speed by the kernel's own scale; 0 where it does not tell
    uint64_t max_khz;   // 0 where it does not tell
    uint32_t cluster;   // lowest core of those that share a cluster or a clock
};

constexpr const char* kCoreFolder = "/sys/devices/system/cpu";

// The cores that are online under a folder laid out like `kCoreFolder`, by index; empty where there is no such folder.
std::vector<Core> read_cores(const std::string& folder);

// The cores that `threads` threads should stay on, fastest first: as many as leave the system its choice, and so few that whatever
// it chooses has nine tenths of the speed of the fastest `threads` cores. On equal cores that is all of them.
std::vector<uint32_t> fast_cores(const std::vector<Core>& cores, size_t threads);

// The JSON of `lavolta_cores`.
std::string describe_cores(const std::string& folder, size_t threads);

// Cores that the calling thread may run on; empty where the system does not tell.
std::vector<uint32_t> allowed_cores();

// Throws Error unless the list names cores that this process can use, each once.
void check_cores(const std::vector<uint32_t>& cores);

// The list for a run's threads: `wanted` when the caller has a wish, else the fast cores of a computer with unequal ones, else
// empty: any core.
std::vector<uint32_t> choose_cores(const std::vector<uint32_t>& wanted, size_t threads);

// Keeps the calling thread on `cores` (not empty); false where the system refuses.
bool stay_on(const std::vector<uint32_t>& cores);

// Keeps the calling thread on `cores` while it lives, then gives its own cores back. Nothing for an empty list.
class CoreGuard {
   public:
    explicit CoreGuard(const std::vector<uint32_t>& cores);
    ~CoreGuard();
    CoreGuard(const CoreGuard&) = delete;
    CoreGuard& operator=(const CoreGuard&) = delete;

   private:
    std::vector<uint32_t> before_;
};

}  // namespace lavolta
