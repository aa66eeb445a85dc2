//! The results of the driver and of cuFile.

use crate::common::*;
use cuda_stand_in::*;
use std::ffi::{CStr, c_void};
use std::fs;
use std::ptr::null;

#[test]
fn pointers_tell_what_they_are() {
    fn attribute<T: Default>(attribute: u32, pointer: u64) -> T {
        got(|value: *mut T| unsafe { cuPointerGetAttribute(value.cast(), attribute, pointer) })
    }
    passes(&[], || {
        let context = retain(1);
        let memory = allocate(1000);
        let inside = memory + 999;
        assert_eq!(
            attribute::<u32>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inside),
            CU_MEMORYTYPE_DEVICE
        );
        assert_eq!(attribute::<i32>(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, inside), 1);
        assert_eq!(attribute::<usize>(CU_POINTER_ATTRIBUTE_CONTEXT, inside), context);
        assert_eq!(attribute::<u64>(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, inside), memory);
        assert_eq!(attribute::<usize>(CU_POINTER_ATTRIBUTE_RANGE_SIZE, inside), 1000);
        let host = registered(8);
        let kind = attribute::<u32>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host.as_ptr() as u64);
        assert_eq!(kind, CU_MEMORYTYPE_HOST);
        unregister(host);
        ok(cuMemFree_v2(memory));
        for pointer in [host.as_ptr() as u64, memory] {
            let (mut value, kind) = (0_u64, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
            let place = (&raw mut value).cast();
            let result = unsafe { cuPointerGetAttribute(place, kind, pointer) };
            assert_eq!(result, CUDA_ERROR_INVALID_VALUE);
        }
        release(1);
    });
}

#[test]
fn an_integrated_device_counts_the_page_cache_as_used_and_allocates_it() {
    let orders = [("MEMORY", "1000000"), ("PAGE_CACHE", "900000")];
    passes(&orders, || {
        retain(0);
        let (mut free, mut total, mut integrated) = (0, 0, 0);
        ok(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
        assert_eq!((free, total), (100_000, 1_000_000));
        ok(unsafe { cuDeviceGetAttribute(&mut integrated, 18, 0) });
        assert_eq!(integrated, 1);
        let memory = allocate(800_000);
        ok(cuMemFree_v2(memory));
        release(0);
    });
}

#[test]
fn errors_have_names_and_texts() {
    let mut text = null();
    ok(unsafe { cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &mut text) });
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"CUDA_ERROR_OUT_OF_MEMORY");
    ok(unsafe { cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &mut text) });
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"out of memory");
    assert_eq!(unsafe { cuGetErrorName(77, &mut text) }, CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn modules_are_read_and_kernels_found() {
    passes(&[], || {
        retain(0);
        let (module, _) = module();
        let mut kernel = 0;
        let result = unsafe { cuModuleGetFunction(&mut kernel, module, c"ringload_b".as_ptr()) };
        assert_eq!(result, CUDA_ERROR_NOT_FOUND);
        let (mut other, image) = (0, c"\x7fELF".as_ptr().cast());
        assert_eq!(unsafe { cuModuleLoadData(&mut other, image) }, CUDA_ERROR_INVALID_IMAGE);
        ok(cuModuleUnload(module));
        release(0);
    });
}

/// A page that is only readable, as one of a mapped checkpoint is.
#[test]
fn memory_that_is_only_readable_is_registered_as_such() {
    passes(&[], || {
        retain(0);
        let path = std::env::current_exe().unwrap();
        let file = fs::File::open(path).unwrap();
        // SAFETY: a new mapping of a file that nobody truncates.
        let page = unsafe {
            let flags = libc::MAP_PRIVATE;
            libc::mmap(null::<c_void>().cast_mut(), 8192, libc::PROT_READ, flags, fd(&file), 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        assert_eq!(cuMemHostRegister_v2(page, 4096, 0), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemHostRegister_v2(page, 4096, CU_MEMHOSTREGISTER_READ_ONLY));
        let (device, stream) = (allocate(4096), stream());
        ok(cuMemcpyHtoDAsync_v2(device, page, 4096, stream));
        ok(cuStreamSynchronize(stream));
        ok(cuMemHostUnregister(page));
        ok(cuMemFree_v2(device));
        ok(cuStreamDestroy_v2(stream));
        release(0);
    });
}

fn fd(file: &fs::File) -> i32 {
    use std::os::fd::AsRawFd;
    file.as_raw_fd()
}

#[test]
fn only_so_much_memory_can_be_registered() {
    passes(&[("PINNED", "10000")], || {
        retain(0);
        let (one, two) = (registered(6000), vec![0; 6000].leak());
        assert_eq!(register(two, 0), CUDA_ERROR_OUT_OF_MEMORY);
        unregister(one);
        ok(register(two, 0));
        unregister(two);
        release(0);
    });
}

#[test]
fn newer_ptx_than_the_driver_s_is_refused() {
    passes(&[], || {
        retain(0);
        let load = |text: &CStr| {
            let mut module = 0;
            unsafe { cuModuleLoadData(&mut module, text.as_ptr().cast()) }
        };
        let newer = c".version 8.3\n.target sm_70\n";
        assert_eq!(load(newer), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        let for_newer = c".version 8.2\n.target sm_100\n";
        assert_eq!(load(for_newer), CUDA_ERROR_NO_BINARY_FOR_GPU);
        release(0);
    });
}

#[test]
fn a_bit_that_cufile_gets_wrong_is_one() {
    passes(&[("GDS", "on"), ("FLIP", "1")], || {
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        retain(0);
        let path = std::env::current_exe().unwrap();
        let (bytes, file) = (fs::read(&path).unwrap(), fs::File::open(&path).unwrap());
        let (kind, handle) = (CU_FILE_HANDLE_TYPE_OPAQUE_FD, fd(&file) as u64);
        let mut description = CUfileDescr { kind, handle, operations: null() };
        let mut handle = 0;
        let result = unsafe { cuFileHandleRegister(&mut handle, &mut description) };
        assert_eq!(result, CUfileError::SUCCESS);
        let memory = allocate(4096);
        let wrong_bits = || {
            assert_eq!(cuFileRead(handle, memory as *mut c_void, 4096, 0, 0), 4096);
            let found = read(memory, 4096);
            let differ =
                std::iter::zip(found, &bytes).map(|(one, other)| (one ^ other).count_ones());
            differ.sum::<u32>()
        };
        assert_eq!((wrong_bits(), wrong_bits()), (1, 0));
        cuFileHandleDeregister(handle);
        ok(cuMemFree_v2(memory));
        release(0);
        assert_eq!(cuFileDriverClose(), CUfileError::SUCCESS);
    });
}

fn properties() -> CUfileDrvProps {
    let mut properties = CUfileDrvProps::default();
    let result = unsafe { cuFileDriverGetProperties(&mut properties) };
    assert_eq!(result, CUfileError::SUCCESS);
    properties
}

#[test]
fn cufile_is_off_unless_ordered() {
    passes(&[], || {
        let error = cuFileDriverOpen();
        assert_eq!(error.err, CU_FILE_DRIVER_NOT_INITIALIZED);
    });
}

#[test]
fn cufile_tells_when_it_only_falls_back() {
    passes(&[("GDS", "compat")], || {
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        assert_eq!((properties().nvfs_version, properties().status_flags), ([0, 0], 0));
        assert_eq!(cuFileDriverClose(), CUfileError::SUCCESS);
    });
}

#[test]
fn cufile_reads_into_device_memory() {
    let orders = [("GDS", "on"), ("FAIL", "cuFileRead:1:CU_FILE_IO_NOT_SUPPORTED")];
    passes(&orders, || {
        use std::os::fd::AsRawFd;
        assert_eq!(cuFileDriverOpen(), CUfileError::SUCCESS);
        assert_ne!(properties().status_flags, 0);
        retain(0);
        let path = std::env::current_exe().unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = fs::File::open(path).unwrap();
        let (kind, handle) = (CU_FILE_HANDLE_TYPE_OPAQUE_FD, file.as_raw_fd() as u64);
        let mut description = CUfileDescr { kind, handle, operations: null() };
        let mut handle = 0;
        let result = unsafe { cuFileHandleRegister(&mut handle, &mut description) };
        assert_eq!(result, CUfileError::SUCCESS);
        let memory = allocate(1_000_003);
        let base = memory as *mut c_void;
        assert_eq!(cuFileBufRegister(base, 1_000_003, 0), CUfileError::SUCCESS);
        let failed = -(CU_FILE_IO_NOT_SUPPORTED as isize);
        assert_eq!(cuFileRead(handle, base, 1_000_000, 77, 3), failed);
        let (mut done, mut short) = (0, false);
        while done < 1_000_000 {
            let left = 1_000_000 - done;
            let place = (77 + done as i64, 3 + done as i64);
            let read = cuFileRead(handle, base, left.min(20_000), place.0, place.1);
            assert!(read > 0, "{read}");
            short |= (read as usize) < left.min(20_000);
            done += read as usize;
        }
        assert!(short, "no read was cut short");
        assert!(read(memory, 1_000_003)[3..] == bytes[77..1_000_077]);
        assert_eq!(cuFileBufDeregister(base), CUfileError::SUCCESS);
        cuFileHandleDeregister(handle);
        ok(cuMemFree_v2(memory));
        release(0);
        assert_eq!(cuFileDriverClose_v2(), CUfileError::SUCCESS);
    });
}
