// Runs a kernel on the host: `arguments` point to copies of what the launch was given. 0 says that
// it ran, anything else that there is no kernel of this name.

#include <cstdint>

extern "C" int stand_in_launch(const char *name, uint32_t grid_x, uint32_t block_x,
                               uint32_t shared_bytes, void **arguments)
{
    (void)name;
    (void)grid_x;
    (void)block_x;
    (void)shared_bytes;
    (void)arguments;
    return 1;
}
