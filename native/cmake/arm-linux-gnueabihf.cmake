# 32-bit Arm Linux, ARMv7-A with a hardware float ABI, with Debian's cross compiler (package g++-arm-linux-gnueabihf). Programs run
# under qemu-arm (package qemu-user).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(CMAKE_C_COMPILER arm-linux-gnueabihf-gcc)
set(CMAKE_CXX_COMPILER arm-linux-gnueabihf-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
