defmodule Pair.MixProject do
  use Mix.Project

  def project do
    [
      app: :pair,
      version: "0.1.0",
      elixir: "~> 1.11",
      start_permanent: true,
      deps: [{:oneport, path: "../../../erlang"}]
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end
end
