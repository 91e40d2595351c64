# How a program finds the installed library: pkg-config (lavolta.pc) and CMake (find_package(lavolta), lavolta::lavolta).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

target_include_directories(lavolta INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/native/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS lavolta EXPORT lavolta LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES native/include/lavolta.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# The library hides everything but C, so a program needs no other package: the targets are the whole configuration.
set(PACKAGE_FOLDER ${CMAKE_INSTALL_LIBDIR}/cmake/lavolta)
install(EXPORT lavolta FILE lavoltaConfig.cmake NAMESPACE lavolta:: DESTINATION ${PACKAGE_FOLDER})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lavoltaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lavoltaConfigVersion.cmake DESTINATION ${PACKAGE_FOLDER})

# Relative to itself, so that the prefix may be moved.
file(RELATIVE_PATH LAVOLTA_PREFIX_FROM_PKGCONFIG /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(native/packaging/lavolta.pc.in lavolta.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/lavolta.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
