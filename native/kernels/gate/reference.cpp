// Gated activations, portable. Shazeer, "GLU Variants Improve Transformer", 2020.
#include "../scalar.h"

namespace lavolta {

void gate_reference(const GateArgs& a) {
    for (size_t i = 0; i < a.count; ++i) a.values[i] *= activate(a.gate[i], a.activation);
}

}  // namespace lavolta
