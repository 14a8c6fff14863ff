import Config

config :oneport, port: String.to_integer(System.get_env("DOOR_PORT", "4369"))
