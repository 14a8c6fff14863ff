package sockmap

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Werror -I ../../bpf" -target bpfel,bpfeb -go-package sockmap Forward sockmap.bpf.c
