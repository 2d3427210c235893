/*
 * Since glibc 2.32 this tells the standard library that reference counts need no atomic operations. The floor of a
 * release is older. Nobody counts threads there, so they do need them.
 */
char __libc_single_threaded = 0;
