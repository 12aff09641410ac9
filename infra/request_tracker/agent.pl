#!/usr/bin/perl
# For an RT that runs for tests and on one's own machine only: an agent who may do anything.
#
#   perl agent.pl LOGIN NAME    prints a token
use strict;
use warnings;
use lib '/usr/share/request-tracker5/lib', '/usr/local/share/request-tracker5/lib';
use RT -init;

my ($login, $name) = @ARGV;
my $user = RT::User->new(RT->SystemUser);
my ($id, $message) = $user->Create(
    Name => $login, RealName => $name, EmailAddress => "$login\@local.test",
    Password => 'password', Privileged => 1);
die "RT refuses: $message\n" unless $id;
$user->PrincipalObj->GrantRight(Right => 'SuperUser', Object => RT->System);
my (undef, undef, $token) =
  RT::AuthToken->new(RT->SystemUser)->Create(Owner => $id, Description => 'local');
print "$token\n";
