//! The C library's allocator, held small. By default it gives threads arenas of their own, up to eight a
//! core, and each keeps what it once needed: for an agent that allocates little, on many threads, that is
//! more memory than its data. The only module of nodectl with unsafe code.

/// Lets the allocator have at most two arenas, for the two threads that do most of the work. To be called
/// before other threads are started; harmless where the C library has no such setting.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt is a C function and has no safe wrapper")]
    // SAFETY: mallopt takes two integers and changes settings of the allocator under its own lock.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 2);
    }
}
