namespace Pesto.CommandLine;

/// <summary>What <c>--version</c> prints, in either role.</summary>
public static class VersionText
{
    public const string Value = $"""
        pesto {BuildVersion.Text}
        Licence: Apache-2.0 <https://www.apache.org/licenses/LICENSE-2.0>
        Comes without warranty of any kind.

        """;
}
