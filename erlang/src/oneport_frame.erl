%% @doc The frames of the handover protocol, version 1, as the node's side speaks it
%% (docs/PROTOCOL.md, "Handover").
%%
%% A frame is one packet of a SOCK_SEQPACKET socket: a type of 8 bits, then fields
%% `tag8 len16 value', big-endian. This module knows bytes, and neither sockets nor
%% descriptors.
-module(oneport_frame).

-export([hello/2, accept/1, refuse/2, decode/1]).

-export_type([id/0, offer/0, frame/0]).

-type id() :: 0..16#ffffffffffffffff.
%% Of an offer, chosen by the daemon, and of use on one connection only.
-type offer() :: #{id := id(), name := binary(),
                   peer := {inet:ip_address(), inet:port_number()},
                   local := {inet:ip_address(), inet:port_number()},
                   protocol := binary(), taken := binary()}.
%% `taken' is what the daemon has read from the connection and is the node's.
-type frame() :: {welcome, Version :: byte()}
               | {reject, Code :: byte(), Reason :: binary()}
               | {offer, offer()}
               | {commit | cancel, id()}.

-define(VERSION, 1).
%% Bytes of UTF-8.
-define(MAX_REASON, 255).

-define(TAG_VERSION, 16#01).
-define(TAG_NAME, 16#02).
-define(TAG_HOST, 16#03).
-define(TAG_ID, 16#10).
-define(TAG_REASON, 16#11).
-define(TAG_CODE, 16#12).
-define(TAG_PEER, 16#20).
-define(TAG_LOCAL, 16#21).
-define(TAG_PROTOCOL, 16#22).
-define(TAG_TAKEN, 16#23).
%% Tags from here on must be understood.
-define(CRITICAL, 16#80).

%% @doc The node's first frame: the two parts of its name in UTF-8, and the versions it
%% speaks.
-spec hello(Name :: binary(), Host :: binary()) -> binary().
hello(Name, Host) ->
    iolist_to_binary([$H, field(?TAG_VERSION, <<?VERSION>>), field(?TAG_NAME, Name),
                      field(?TAG_HOST, Host)]).

%% @doc The descriptor is good, and the node waits for the commit.
-spec accept(id()) -> binary().
accept(Id) ->
    iolist_to_binary([$A, field(?TAG_ID, <<Id:64>>)]).

%% @doc The node has closed the descriptor. `Reason' is ASCII and cut at 255 bytes.
-spec refuse(id(), iodata()) -> binary().
refuse(Id, Reason) ->
    Bytes = iolist_to_binary(Reason),
    Cut = binary:part(Bytes, 0, min(byte_size(Bytes), ?MAX_REASON)),
    iolist_to_binary([$N, field(?TAG_ID, <<Id:64>>), field(?TAG_REASON, Cut)]).

field(Tag, Value) ->
    [<<Tag, (byte_size(Value)):16>>, Value].

%% @doc What the daemon says. Unknown fields are left aside where the protocol allows;
%% everything else that is not of the protocol is `malformed'.
-spec decode(binary()) -> {ok, frame()} | malformed.
decode(<<Type, Rest/binary>>) ->
    case fields(Rest, #{}) of
        malformed -> malformed;
        Fields -> frame(Type, Fields)
    end;
decode(<<>>) ->
    malformed.

fields(<<>>, Fields) ->
    Fields;
fields(<<Tag, Length:16, Value:Length/binary, Rest/binary>>, Fields)
  when not is_map_key(Tag, Fields) ->
    case Tag < ?CRITICAL of
        true -> fields(Rest, Fields#{Tag => Value});
        false -> malformed
    end;
fields(_, _) ->
    malformed.

frame($W, #{?TAG_VERSION := <<?VERSION>>}) ->
    {ok, {welcome, ?VERSION}};
frame($R, #{?TAG_CODE := <<Code>>, ?TAG_REASON := Reason}) ->
    {ok, {reject, Code, Reason}};
frame($O, #{?TAG_ID := <<Id:64>>, ?TAG_NAME := Name, ?TAG_PEER := Peer,
            ?TAG_LOCAL := Local, ?TAG_PROTOCOL := Protocol} = Fields) ->
    case {address(Peer), address(Local)} of
        {{ok, PeerAddress}, {ok, LocalAddress}} ->
            {ok, {offer, #{id => Id, name => Name, peer => PeerAddress, local => LocalAddress,
                           protocol => Protocol, taken => maps:get(?TAG_TAKEN, Fields, <<>>)}}};
        _ ->
            malformed
    end;
frame($C, #{?TAG_ID := <<Id:64>>}) ->
    {ok, {commit, Id}};
frame($X, #{?TAG_ID := <<Id:64>>}) ->
    {ok, {cancel, Id}};
frame(_, _) ->
    malformed.

address(<<4, Port:16, A, B, C, D>>) ->
    {ok, {{A, B, C, D}, Port}};
address(<<6, Port:16, A:16, B:16, C:16, D:16, E:16, F:16, G:16, H:16>>) ->
    {ok, {{A, B, C, D, E, F, G, H}, Port}};
address(_) ->
    error.
