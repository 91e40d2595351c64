// Activations, portable.
#include "../scalar.h"

namespace lavolta {

void activation_reference(const ActivationArgs& a) {
    for (size_t i = 0; i < a.count; ++i) a.values[i] = activate(a.values[i], a.activation);
}

}  // namespace lavolta
