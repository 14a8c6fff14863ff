// Package bpf holds the kernel programs of the shortcut: their C sources, and
// what bpf2go makes of them, which is committed. It has no code of its own and
// knows nothing of why two sockets are paired; package loader uses it.
//
// The objects are CO-RE: one for each byte order serves every kernel from 6.1
// on. After a change of the sources:
//
//	make generate
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Werror" -target bpfel,bpfeb -type form -type kind -type route -type counts -type endpoint -go-package bpf Shortcut shortcut.bpf.c
