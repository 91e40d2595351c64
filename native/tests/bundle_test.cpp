// The engine against outputs that another engine wrote: bundle_test BUNDLE EXPECTED
//
// EXPECTED is text: a tolerance, then for every case its level, the number of token ids and the ids of one sequence, the number
// of outputs and the outputs. Every case runs on every instruction set with one thread and with three, which must give the same
// bits. Needs no Python, so that it runs on a device or under an emulator.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "lavolta.h"

namespace {

struct Case {
    uint32_t level;
    std::vector<int32_t> ids;
    std::vector<float> outputs;
};

void require(lavolta_status status) {
    if (status == LAVOLTA_OK) return;
    std::fprintf(stderr, "%s: %s\n", lavolta_status_name(status), lavolta_last_error());
    std::exit(2);
}

template <class T>
std::vector<T> read_list(std::istream& in) {
    size_t count = 0;
    in >> count;
    std::vector<T> list(in ? count : 0);
    for (T& item : list) in >> item;
    return list;
}

std::vector<float> run(lavolta_model* model, const Case& wanted) {
    const uint32_t length = static_cast<uint32_t>(wanted.ids.size());
    const lavolta_batch batch{wanted.ids.data(), nullptr, &length, 1, 0};
    size_t rows = 0, columns = 0;
    require(lavolta_switch(model, wanted.level));
    require(lavolta_output_shape(model, &batch, &rows, &columns));
    std::vector<float> outputs(rows * columns);
    require(lavolta_run(model, &batch, outputs.data(), outputs.size()));
    return outputs;
}

}  // namespace

int main(int argc, char** argv) {
    std::ifstream file(argc == 3 ? argv[2] : "");
    double tolerance = 0.0;
    if (!(file >> tolerance)) {
        std::fprintf(stderr, "usage: bundle_test BUNDLE EXPECTED\n");
        return 2;
    }
    std::vector<Case> cases;
    for (Case next; file >> next.level;) {
        next.ids = read_list<int32_t>(file);
        next.outputs = read_list<float>(file);
        if (!file || next.outputs.empty()) {
            std::fprintf(stderr, "case %zu of '%s' is broken\n", cases.size(), argv[2]);
            return 2;
        }
        cases.push_back(next);
    }
    bool good = !cases.empty();
    std::istringstream isas(lavolta_isas());
    for (std::string isa; isas >> isa;) {
        lavolta_options alone{}, shared{};
        alone.isa = shared.isa = isa.c_str();
        shared.threads = 3;
        lavolta_model *one = nullptr, *three = nullptr;
        require(lavolta_open(argv[1], &alone, &one));
        require(lavolta_open(argv[1], &shared, &three));
        double largest = 0.0;
        for (const Case& wanted : cases) {
            const std::vector<float> outputs = run(one, wanted), again = run(three, wanted);
            if (outputs.size() != wanted.outputs.size()) {
                std::fprintf(stderr, "%zu outputs, not %zu\n", outputs.size(), wanted.outputs.size());
                return 1;
            }
            if (std::memcmp(outputs.data(), again.data(), outputs.size() * sizeof(float)) != 0) {
                std::fprintf(stderr, "%s: level %u with three threads gives other bits than with one\n", isa.c_str(), wanted.level);
                good = false;
            }
            for (size_t i = 0; i < outputs.size(); ++i) {
                const double error = std::fabs(static_cast<double>(outputs[i]) - wanted.outputs[i]);
                largest = error > largest || std::isnan(error) ? error : largest;
            }
        }
        std::printf("%s %zu cases, largest error %.3g\n", isa.c_str(), cases.size(), largest);
        good = good && largest <= tolerance;
        lavolta_close(one);
        lavolta_close(three);
    }
    return good ? 0 : 1;
}
