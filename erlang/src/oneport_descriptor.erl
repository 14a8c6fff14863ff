%% @doc A descriptor of the operating system that came from another process and has
%% an owner here.
%%
%% `inet_tcp:fdopen/2' makes a port of a descriptor, but such a port never closes it:
%% the driver takes it for that of a wrapper program. The only other close(2) that
%% Erlang has is that of a file, so the owner holds the descriptor as one, and never
%% reads or writes by it. (`prim_file:file_desc_to_ref/2' is undocumented, is not there in
%% OTP 23, and is from 25 to 29.) A file's owner closes it by its death, too.
-module(oneport_descriptor).

-export([supported/0, own/1, close/1]).

-export_type([descriptor/0]).

-opaque descriptor() :: file:fd().

%% @doc Whether this release can close a descriptor that it has not opened. `socket:open/2'
%% is no way out for one that cannot: with `dup' it closes its copy, without it nothing.
-spec supported() -> boolean().
supported() ->
    erlang:function_exported(prim_file, file_desc_to_ref, 2).

%% @doc Makes the calling process the owner of descriptor `Number'. The result must be
%% kept until {@link close/1}: the collection of garbage closes it, as the owner's
%% death does.
-spec own(non_neg_integer()) -> {ok, descriptor()} | {error, file:posix()}.
own(Number) ->
    prim_file:file_desc_to_ref(Number, [read]).

%% @doc close(2), by the owner. No driver may use the descriptor any more.
-spec close(descriptor()) -> ok.
close(Descriptor) ->
    %% What close(2) has to say (EIO of a file) does not concern a socket: it is closed.
    _ = prim_file:close(Descriptor),
    ok.
