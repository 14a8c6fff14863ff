%% @doc The client's side of the EPMD handover: the connection to a host's EPMD becomes
%% the connection to one of its nodes.
%%
%% The request is EPMD's, `len16 68 name'; the answer that lets the distribution begin
%% is `69 00 version16', everything after it is the node's. `69' and anything but zero
%% is a refusal. (docs/PROTOCOL.md, "Handover".)
%%
%% This module knows sockets and bytes, but not nodes, settings or the log.
-module(oneport_handover).

-export([request/1, client/3, format_error/1]).

-export_type([reason/0]).

-type reason() :: refused | not_epmd | timeout | closed | inet:posix().

-define(HANDOVER_REQ, 16#68).
-define(HANDOVER_RESP, 16#69).

%% @doc The request for the node `Name', the part of a node's name before the `@'.
-spec request(string()) -> binary().
request(Name) ->
    Bytes = unicode:characters_to_binary(Name),
    <<(byte_size(Bytes) + 1):16, ?HANDOVER_REQ, Bytes/binary>>.

%% @doc Sends `Request' on a connected, passive socket, and reads the answer by
%% `Deadline'. With `{ok, Version}' the handshake in that version may begin, and the
%% socket has read nothing beyond the answer; its packet type and mode are the caller's
%% to set. After an error the socket is of no use; closing it is the caller's too.
-spec client(gen_tcp:socket(), Request :: binary(), oneport_upgrade:deadline()) ->
          {ok, 5..6} | {error, reason()}.
client(Socket, Request, Deadline) ->
    %% A peer that has gone makes setopts answer einval.
    case inet:setopts(Socket, [binary, {packet, raw}]) of
        ok ->
            %% The send cannot block: the request is smaller than the driver's queue.
            case gen_tcp:send(Socket, Request) of
                ok -> answer(Socket, Deadline);
                {error, Reason} -> {error, Reason}
            end;
        {error, _} ->
            {error, closed}
    end.

%% A refusal has two bytes, so the version is not waited for before the result is known.
answer(Socket, Deadline) ->
    case receive_bytes(Socket, 2, Deadline) of
        {ok, <<?HANDOVER_RESP, 0>>} ->
            case receive_bytes(Socket, 2, Deadline) of
                {ok, <<Version:16>>} -> {ok, version(Version)};
                Error -> Error
            end;
        {ok, <<?HANDOVER_RESP, _>>} ->
            {error, refused};
        {ok, _} ->
            {error, not_epmd};
        Error ->
            Error
    end.

receive_bytes(Socket, Count, Deadline) ->
    gen_tcp:recv(Socket, Count, oneport_upgrade:time_left(Deadline)).

%% The nodes of 2016 put a number of their own here, and speak 5, which every node takes
%% as "not known to be newer".
version(6) -> 6;
version(_) -> 5.

%% @doc The reason in words that follow "door x", without a full stop.
-spec format_error(reason()) -> unicode:chardata().
format_error(refused) ->
    "refused the handover: the node is not registered there, or cannot be reached";
format_error(not_epmd) ->
    "does not speak EPMD's handover: is the port another server's?";
format_error(timeout) ->
    "accepted the connection, but did not answer in time";
format_error(closed) ->
    "closed the connection without an answer: does it know EPMD's handover?";
format_error(Reason) ->
    ["broke the connection: ", inet:format_error(Reason)].
