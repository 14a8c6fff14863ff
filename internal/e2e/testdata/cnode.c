/* A C node: registers as c@HOST, accepts one node, and sends every message
   {Pid, Term} back to Pid as {cnode, Term}. It ends when the other node goes.

   cnode HOST ADDRESS COOKIE */
#include <arpa/inet.h>
#include <stdio.h>

#include <ei.h>

static int serve(ei_cnode *self, int listener)
{
    ErlConnect peer;
    int fd = ei_accept(self, listener, &peer);
    if (fd < 0) {
        fprintf(stderr, "ei_accept: %d\n", erl_errno);
        return 1;
    }
    for (;;) {
        erlang_msg message;
        ei_x_buff in, out;
        erlang_pid from;
        int got, index = 0, version, arity;

        ei_x_new(&in);
        got = ei_xreceive_msg(fd, &message, &in);
        if (got == ERL_ERROR)
            return 0;
        if (got == ERL_MSG && (message.msgtype == ERL_SEND || message.msgtype == ERL_REG_SEND)
            && ei_decode_version(in.buff, &index, &version) == 0
            && ei_decode_tuple_header(in.buff, &index, &arity) == 0 && arity == 2
            && ei_decode_pid(in.buff, &index, &from) == 0) {
            ei_x_new_with_version(&out);
            ei_x_encode_tuple_header(&out, 2);
            ei_x_encode_atom(&out, "cnode");
            ei_x_append_buf(&out, in.buff + index, in.index - index);
            ei_send(fd, &from, out.buff, out.index);
            ei_x_free(&out);
        }
        ei_x_free(&in);
    }
}

int main(int argc, char **argv)
{
    ei_cnode self;
    struct in_addr address;
    char node[256];
    int port = 0, listener;

    if (argc != 4 || inet_aton(argv[2], &address) == 0) {
        fprintf(stderr, "usage: cnode HOST ADDRESS COOKIE\n");
        return 2;
    }
    ei_init();
    snprintf(node, sizeof node, "c@%s", argv[1]);
    if (ei_connect_xinit(&self, argv[1], "c", node, &address, argv[3], 0) < 0) {
        fprintf(stderr, "ei_connect_xinit: %d\n", erl_errno);
        return 1;
    }
    if ((listener = ei_listen(&self, &port, 5)) < 0) {
        fprintf(stderr, "ei_listen: %d\n", erl_errno);
        return 1;
    }
    /* The connection to EPMD, and with it the name, stays until the end. */
    if (ei_publish(&self, port) < 0) {
        fprintf(stderr, "ei_publish: %d\n", erl_errno);
        return 1;
    }
    puts("registered");
    fflush(stdout);
    return serve(&self, listener);
}
